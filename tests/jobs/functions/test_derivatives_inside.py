"""Functions that differentiate inside, against what torch or a formula gives directly."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev, vmap

import jobs


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


POINTS, SAMPLES, LABELS = drawn(5, 4, 3), drawn(6, 2, seed=1), drawn(6, 2, seed=2)
RATES, WEIGHTS = drawn(6, seed=3), drawn(3, seed=4)


def energy(x: Tensor) -> Tensor:
    return ((x[1:] - x[:-1]).norm(dim=1) - 1).square().sum()


def forces(x: Tensor) -> Tensor:
    """Return what needs an argument that requires a gradient."""
    return -torch.autograd.grad(energy(x), x, create_graph=True)[0]


def asking_forces(x: Tensor) -> Tensor:
    """Return the same of any argument, which is asked whether it requires a gradient."""
    return forces(x if x.requires_grad else x.clone().requires_grad_())


def adapted(rate: Tensor) -> Tensor:
    """Return the loss after a step of gradient descent on WEIGHTS, as meta-learning has it."""
    weights = WEIGHTS.clone().requires_grad_()
    loss = rate.exp() * weights.square().sum()
    (gradient,) = torch.autograd.grad(loss, weights, create_graph=True)
    return (weights - 0.1 * gradient).square().sum()


def slope_of_adapted(rate: Tensor) -> Tensor:
    rate = rate.exp()
    return -0.4 * rate * (1 - 0.2 * rate) * WEIGHTS.square().sum()


class Field(nn.Module):
    """The gradient of a scalar network in its inputs, as physics-informed networks use it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
        generator = torch.Generator().manual_seed(5)
        for each in self.parameters():
            each.data = torch.randn(each.shape, dtype=torch.float64, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.net(x).sum(), x, create_graph=True)[0]


def by_parameters(field: Field) -> Tensor:
    """Return the Jacobian of the field of all samples by the parameters, without any autograd.grad.

    The shape is (samples, outputs, parameters).
    """
    given = {name: each.detach() for name, each in field.net.named_parameters()}

    def outputs(parameters: dict[str, Tensor]) -> Tensor:
        def scalar(x: Tensor) -> Tensor:
            return functional_call(field.net, parameters, (x,)).sum()

        return vmap(grad(scalar))(SAMPLES)

    return torch.cat([each.reshape(6, 2, -1) for each in jacrev(outputs)(given).values()], dim=2)


def compute(op: str, function: Any, point: Any, runs: Path, **options: Any) -> Any:
    result = jobs.compute(op, function, point, runs=runs, progress="quiet", **options)
    assert result.verdict.state == "verified"
    return result


@pytest.mark.parametrize("function", [forces, asking_forces])
def test_forces_at_many_points(function: Any, tmp_path: Path) -> None:
    result = compute("jacobian", function, POINTS, tmp_path, points="leading")
    expected = torch.stack([-hessian(energy)(each).reshape(12, 12) for each in POINTS])
    np.testing.assert_allclose(result[...], expected, atol=1e-12)
    (value,) = result.value.values()
    np.testing.assert_allclose(value, [-grad(energy)(each) for each in POINTS], atol=1e-12)


@pytest.mark.parametrize("function", [forces, asking_forces])
def test_forces_at_points_of_different_sizes(function: Any, tmp_path: Path) -> None:
    rows, offsets = POINTS.reshape(20, 3), [0, 3, 8, 20]
    points = {"by": "offsets", "offsets": offsets}
    result = compute("jacobian", function, rows, tmp_path, points=points)
    for number, (start, stop) in enumerate(pairwise(offsets)):
        expected = -hessian(energy)(rows[start:stop]).reshape(3 * (stop - start), -1)
        np.testing.assert_allclose(result.point(number)[...], expected, atol=1e-12)


@pytest.mark.parametrize("function", [forces, asking_forces])
def test_products_of_forces_from_the_left(function: Any, tmp_path: Path) -> None:
    result = compute("vjp", function, POINTS[0], tmp_path, vectors=POINTS[1:3])
    expected = POINTS[1:3].reshape(2, 12) @ -hessian(energy)(POINTS[0]).reshape(12, 12)
    np.testing.assert_allclose(result[...], expected, atol=1e-12)


@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode"])
def test_a_step_of_gradient_descent_at_many_points(strategy: str, tmp_path: Path) -> None:
    result = compute("jacobian", adapted, RATES, tmp_path, points="leading", strategy=strategy)
    np.testing.assert_allclose(np.ravel(result[...]), slope_of_adapted(RATES), rtol=1e-12)


def test_a_step_of_gradient_descent_has_products_from_the_left(tmp_path: Path) -> None:
    result = compute("vjp", adapted, RATES[0], tmp_path, vectors=torch.ones(1).double())
    np.testing.assert_allclose(np.ravel(result[...]), slope_of_adapted(RATES[:1]), rtol=1e-12)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_curvature_of_a_gradient_of_a_network(batch_size: int | None, tmp_path: Path) -> None:
    field, point = Field(), {"x": SAMPLES, "label": LABELS}
    loss = {"kind": "mse", "batch_size": batch_size}
    jacobian = by_parameters(field)
    result = compute("ggn", field, point, tmp_path, wrt="params", loss=loss)
    flat = jacobian.reshape(12, -1)
    np.testing.assert_allclose(result[...], 2 / 12 * flat.T @ flat, atol=1e-12)
    result = compute("fisher", field, point, tmp_path, wrt="params", loss=loss)
    # The gradients of the sums of squares, with a weight of one over the number of squares.
    errors = (field(SAMPLES) - LABELS).detach()
    gradients = 2 * torch.einsum("sop,so->sp", jacobian, errors)
    np.testing.assert_allclose(result[...], gradients.T @ gradients / 12, atol=1e-12)


def test_curvature_at_many_points_of_a_gradient(tmp_path: Path) -> None:
    point = {"x": POINTS, "label": torch.zeros_like(POINTS)}
    loss = {"kind": "mse", "reduction": "sum"}
    result = compute("ggn", forces, point, tmp_path, points="leading", loss=loss)
    second = torch.stack([hessian(energy)(each).reshape(12, 12) for each in POINTS])
    np.testing.assert_allclose(result[...], 2 * second @ second, atol=1e-11)


def test_a_wrong_reduction_is_seen_although_the_network_differentiates(tmp_path: Path) -> None:
    def summed(output: Tensor, label: Tensor) -> Tensor:
        return (output - label).square().sum()

    point = {"x": SAMPLES, "label": LABELS}
    with pytest.raises(jobs.JobError, match=r"valid is loss.reduction=sum"):
        jobs.compute("ggn", Field(), point, wrt="params", loss=summed, runs=tmp_path)
