"""The user's modules, by their inputs and by their parameters."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call

from jobs.job import Job
from outputs import Result
from tests.jobs.support.own_model import VALUES, of, user

Resolve = Callable[..., Job]
Run = Callable[..., Result]


def reference(module: torch.nn.Module, x: torch.Tensor, names: list[str]) -> torch.Tensor:
    """Return the Jacobian with respect to parameters by torch itself, (outputs, parameters)."""
    parameters = dict(module.named_parameters())

    def function(*values: torch.Tensor) -> torch.Tensor:
        return functional_call(module, dict(zip(names, values, strict=True)), (x,))

    given = tuple(parameters[name].detach() for name in names)
    blocks = torch.autograd.functional.jacobian(function, given)
    return torch.cat(
        [block.reshape(-1, p.numel()) for block, p in zip(blocks, given, strict=True)], 1
    )


@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode"])
@pytest.mark.parametrize("pattern", ["*", "encoder.*.weight", "[head.bias,encoder.0.*]"])
def test_a_jacobian_by_parameters(
    pattern: str, strategy: str, model: Path, run_job: Run, resolved: Resolve
) -> None:
    overrides = ("op=jacobian", f"strategy={strategy}", *of("Net"), "wrt=params", *VALUES)
    overrides = (*overrides, "seed=3")
    if pattern != "*":
        overrides = (*overrides, f"wrt.pattern={pattern}")
    job = resolved(*overrides)
    torch.manual_seed(3)
    net = user(job).Net().double()
    names = {
        "*": [name for name, _ in net.named_parameters()],
        "encoder.*.weight": ["encoder.0.weight"],
    }.get(pattern, ["encoder.0.weight", "encoder.0.bias", "head.bias"])
    result = run_job(job)
    assert [tensor.name for tensor in result.columns] == names
    assert [tensor.shape for tensor in result.columns] == [
        tuple(net.get_parameter(name).shape) for name in names
    ]
    expected = reference(net, torch.tensor([1.0, 2, 3], dtype=torch.float64), names)
    np.testing.assert_allclose(result[...], expected, rtol=1e-12, atol=1e-14)
    with torch.no_grad():
        value = net(torch.tensor([1.0, 2, 3], dtype=torch.float64))
    np.testing.assert_allclose(result.value["output"], value, rtol=1e-14)


def test_a_jacobian_by_inputs_of_an_instance_leaves_it_as_it_was(
    model: Path, run_job: Run, resolved: Resolve
) -> None:
    job = resolved("op=jacobian", *of("net"), *VALUES)
    net = user(job).net
    result = run_job(job)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in net.parameters())
    double = net.double()
    x = torch.tensor([1.0, 2, 3], dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(double, x)
    np.testing.assert_allclose(result[...], expected, rtol=1e-12)
    assert [tensor.name for tensor in result.columns] == ["x"]


def test_tied_parameters_count_once(model: Path, run_job: Run, resolved: Resolve) -> None:
    job = resolved("op=jacobian", *of("Tied"), "wrt=params", *VALUES)
    result = run_job(job)
    assert [tensor.name for tensor in result.columns] == ["first.weight"]
    torch.manual_seed(0)
    tied = user(job).Tied().double()
    x = torch.tensor([1.0, 2, 3], dtype=torch.float64)
    weight = tied.first.weight.detach()
    expected = torch.autograd.functional.jacobian(lambda w: w @ torch.tanh(w @ x), weight)
    np.testing.assert_allclose(result[...], expected.reshape(3, 9), rtol=1e-12, atol=1e-15)


def test_frozen_parameters_are_constants(model: Path, resolved: Resolve) -> None:
    job = resolved("op=jacobian", *of("frozen", "function.factory=true"), "wrt=params", *VALUES)
    assert list(job.point) == ["head.weight", "head.bias"]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_modes_of_a_module_with_running_statistics(
    mode: str, model: Path, run_job: Run, resolved: Resolve
) -> None:
    data = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.save(model / "x.npy", data)
    inputs = ("inputs=numpy", "inputs.path=x.npy", "strategy=vectorize")
    job = resolved("op=jacobian", *of("Normed", f"function.mode={mode}"), "wrt=params", *inputs)
    result = run_job(job)
    torch.manual_seed(0)
    normed = user(job).Normed().double().train(mode == "train")
    names = [name for name, _ in normed.named_parameters()]
    expected = reference(normed, data, names)
    np.testing.assert_allclose(result[...], expected, rtol=1e-9, atol=1e-12)
