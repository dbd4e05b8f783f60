"""Losses over data, at once and in batches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call

from jobs.errors import JobError
from jobs.functions.batch_sum import BatchSum
from jobs.job import Job
from jobs.sources.source_array import SourceArray
from outputs import Result
from tests.jobs.support.own_model import of, user

Resolve = Callable[..., Job]
Run = Callable[..., Result]


def data(model: Path, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(11, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(11, 2, generator=generator, dtype=torch.float64)
    label = torch.arange(11) % 2 if kind == "cross_entropy" else y
    np.savez(model / "data.npz", x=x.numpy(), label=label.numpy())
    np.save(model / "x.npy", x.numpy())
    np.save(model / "label.npy", label.numpy())
    return x, label


def reference_loss(kind: str, reduction: str) -> Callable[..., torch.Tensor]:
    return {
        "mse": lambda y, t: torch.nn.functional.mse_loss(y, t, reduction=reduction),
        "cross_entropy": lambda y, t: torch.nn.functional.cross_entropy(y, t, reduction=reduction),
        "python": lambda y, t: torch.sqrt(1 + (y - t) ** 2).sum(),
    }[kind]


@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode"])
@pytest.mark.parametrize(
    ("kind", "reduction"),
    [("mse", "mean"), ("mse", "sum"), ("cross_entropy", "mean"), ("python", "sum")],
)
def test_a_hessian_of_a_loss_over_batches(
    kind: str, reduction: str, strategy: str, model: Path, run_job: Run, resolved: Resolve
) -> None:
    x, label = data(model, kind)
    files = ("inputs=named", "inputs.tensors.x=x.npy", "inputs.tensors.label=label.npy")
    loss = (f"loss={kind}", f"loss.reduction={reduction}", "loss.batch_size=4")
    loss += ("loss.target=code/model.py:huber",) if kind == "python" else ()
    overrides = ("op=hessian", f"strategy={strategy}", *of("Net"), "wrt=params", *loss, *files)
    job = resolved(*overrides)
    assert isinstance(job.function.function, BatchSum)
    result = run_job(job)
    torch.manual_seed(0)
    net = user(job).Net().double()
    names = [name for name, _ in net.named_parameters()]
    given = tuple(parameter.detach() for parameter in net.parameters())
    expected_loss = reference_loss(kind, reduction)

    def total(*values: torch.Tensor) -> torch.Tensor:
        output = functional_call(net, dict(zip(names, values, strict=True)), (x,))
        return expected_loss(output, label)

    sizes = [parameter.numel() for parameter in given]
    nested = torch.autograd.functional.hessian(total, given)
    expected = torch.cat(
        [
            torch.cat([block.reshape(n, m) for block, m in zip(row, sizes, strict=True)], 1)
            for row, n in zip(nested, sizes, strict=True)
        ]
    )
    np.testing.assert_allclose(result[...], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(result.value["output"], total(*given), rtol=1e-12)
    assert result.execution["verification"]["kind"] != "none"


@pytest.mark.parametrize("operation", ["vhp", "hvp", "vjp", "jvp", "jacobian"])
def test_other_operations_over_batches_agree_with_those_at_once(
    operation: str, model: Path, run_job: Run
) -> None:
    data(model, "mse")
    overrides = (f"op={operation}", "strategy=vectorize", *of("Net"), "wrt=params", "loss=mse")
    overrides = (*overrides, "inputs=numpy", "inputs.path=data.npz", "vectors.count=2")
    if operation == "jacobian":
        overrides = overrides[:-1]
    at_once = run_job(*overrides)
    batched = run_job(*overrides, "loss.batch_size=3")
    assert at_once.path != batched.path
    np.testing.assert_allclose(batched[...], at_once[...], rtol=1e-10, atol=1e-13)


def test_a_function_that_is_a_loss_itself(model: Path, run_job: Run) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((7, 3)), generator.standard_normal(7)
    np.savez(model / "data.npz", x=x, y=y, theta=np.ones(3))
    overrides = ("op=hessian", *of("own_loss"), "loss=own", "wrt.pattern=theta")
    result = run_job(*overrides, "loss.batch_size=2", "inputs=numpy", "inputs.path=data.npz")
    np.testing.assert_allclose(result[...], 2 * x.T @ x / 7, rtol=1e-12)


def test_a_batch_is_all_that_is_read_at_once(
    model: Path, resolved: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    data(model, "mse")
    files = ("inputs=named", "inputs.tensors.x=x.npy", "inputs.tensors.label=label.npy")
    job = resolved("op=hessian", *of("Net"), "wrt=params", "loss=mse", "loss.batch_size=4", *files)
    seen: list[int] = []
    function = job.function.function
    assert isinstance(function, BatchSum)
    original = SourceArray.kept

    def kept(self: SourceArray, *given: Any) -> torch.Tensor:
        tensor = original(self, *given)
        seen.append(len(tensor))
        return tensor

    monkeypatch.setattr(SourceArray, "kept", kept)
    function(*job.point.values())
    assert seen == [4, 4, 4, 4, 3, 3]


def test_labels_of_another_shape_are_not_broadcast(model: Path, run_job: Run) -> None:
    np.savez(model / "data.npz", x=np.ones((5, 3)), label=np.ones((5, 1)))
    overrides = ("op=hessian", *of("Net"), "wrt=params", "loss=mse")
    with pytest.raises(JobError, match=r"output has the shape \(5, 2\) and the labels \(5, 1\)"):
        run_job(*overrides, "inputs=numpy", "inputs.path=data.npz")
    np.savez(model / "data.npz", x=np.ones((5, 3)), label=np.arange(5))
    with pytest.raises(JobError, match=r"labels go from 0 to 4; the output has the classes 0 to 1"):
        run_job(*overrides, "loss=cross_entropy", "inputs=numpy", "inputs.path=data.npz")
