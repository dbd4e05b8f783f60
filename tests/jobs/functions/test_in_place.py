"""Functions that work in place on their arguments: neither numbers nor points change."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacrev

import jobs
from autodiff_core import ggn
from outputs import Result, VerificationState

COUNT, SIZE = 2, 4
generator = torch.Generator().manual_seed(0)
X, Y = torch.rand(2, COUNT, SIZE, generator=generator, dtype=torch.float64)


def function(x: Tensor, y: Tensor) -> Tensor:
    y.mul_(2.0)
    return (x.sin() * y).sum() * y[0] + (x**3).sum()


def expected(op: str, number: int) -> np.ndarray:
    def flat(z: Tensor) -> Tensor:
        return function(z[:SIZE], z[SIZE:].clone())

    z = torch.cat([X[number], Y[number]])
    whole = (hessian if op == "hessian" else jacrev)(flat)(z)
    return whole.reshape(-1, 2 * SIZE).numpy()


@pytest.mark.parametrize("columns", [None, {"tensor": "x"}])
@pytest.mark.parametrize("op", ["jacobian", "hessian"])
@pytest.mark.parametrize(
    "points", [None, "leading", {"by": "offsets", "offsets": [0, SIZE, 2 * SIZE - 1]}]
)
def test_a_function_receives_copies(op: str, points: Any, columns: Any, tmp_path: Path) -> None:
    is_ragged = isinstance(points, dict)
    if points is None:
        given = {"x": X[0].clone(), "y": Y[0].clone()}
    elif is_ragged:
        given = {"x": X.flatten()[:-1].clone(), "y": Y.flatten()[:-1].clone()}
    else:
        given = {"x": X.clone(), "y": Y.clone()}
    with jobs.compute(
        op, function, given, columns=columns, points=points, strategy="vectorize", runs=tmp_path
    ) as result:
        assert isinstance(result, Result)
        found = result[...] if points is None else result.point(0)[:]
        whole = expected(op, 0)
        np.testing.assert_allclose(found, whole[:, :SIZE] if columns else whole, rtol=1e-12)
        point = result.points if points is None else result.point(0).point
        np.testing.assert_array_equal(point["y"], Y[0])
        assert result.verdict.state is VerificationState.VERIFIED


@pytest.mark.parametrize("strategy", ["vectorize", "reverse-loop", "forward-mode"])
def test_curvature_leaves_inputs_and_data_as_they_were(strategy: str) -> None:
    def outputs(x: Tensor, data: Tensor) -> Tensor:
        x.mul_(2.0)
        return torch.tanh(data.add_(1.0) @ x)

    x, data = X[0].clone(), Y.clone()
    found = ggn(outputs, lambda z: (z**3).sum(), x, data=(data,), strategy=strategy)
    assert torch.equal(x, X[0])
    assert torch.equal(data, Y)
    z = torch.tanh((Y + 1) @ (2 * x))
    jacobian = (1 - z**2)[:, None] * 2 * (Y + 1)
    torch.testing.assert_close(found, jacobian.T @ torch.diag(6 * z) @ jacobian)
