"""Hessians by forward mode are written as rows if they are found to be symmetric, else columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autodiff_core import Block, BlockStream
from jobs.errors import JobError
from jobs.job import Job
from outputs import Result, open_result, part_path

QUARTIC = ("op=hessian", "strategy=forward-mode", "function=pairwise_energy", "function.n=6")

# Its gradient is A x, so that its second derivatives are those of A, which is not symmetric.
LOPSIDED = """
import torch

A = torch.arange(36, dtype=torch.float64).reshape(6, 6).sin()


class Lopsided(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return (x * (A @ x)).sum() / 2

    @staticmethod
    def setup_context(context, inputs, output):
        context.save_for_backward(*inputs)
        context.save_for_forward(*inputs)

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return gradient * (A @ x)

    @staticmethod
    def jvp(context, tangent):
        (x,) = context.saved_tensors
        return (A @ x) @ tangent


def f(x):
    return Lopsided.apply(x)
"""


@pytest.fixture
def lopsided(directory: Path) -> tuple[str, ...]:
    (directory / "lopsided.py").write_text(LOPSIDED)
    np.save(directory / "x.npy", np.linspace(-1, 1, 6))
    return (
        "op=hessian",
        "strategy=forward-mode",
        "function=python",
        "function.target=./lopsided.py:f",
        # Its gradient is not that of its values.
        "verify.differences=false",
        "inputs=numpy",
        "inputs.path=x.npy",
    )


def of_torch(job: Job) -> np.ndarray:
    """The Hessian by `torch.autograd.functional`, one input tensor."""
    (point,) = job.point.values()
    size = point.numel()
    hessian: Any = torch.autograd.functional.hessian(job.function.function, point)
    return hessian.reshape(size, size).numpy()


def fails_at(monkeypatch: pytest.MonkeyPatch, start: int) -> None:
    """Let the block of several lines that begins there fail, from now on."""
    original = BlockStream.block

    def block(self: BlockStream, first: int, last: int) -> Block:
        if (first, last - first) == (start, 3):
            raise RuntimeError("the machine is tired")
        return original(self, first, last)

    monkeypatch.setattr(BlockStream, "block", block)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_symmetric_one_is_written_as_rows(
    dtype: str, resolved: Callable[..., Job], run_job: Callable[..., Result]
):
    job = resolved(*QUARTIC, f"dtype={dtype}", "chunk_size=5")
    result = run_job(job)
    assert result.axis == "rows"
    assert "symmetric" in result.execution["plan"]["strategy_reason"]
    scale = np.abs(of_torch(job)).max()
    np.testing.assert_allclose(
        result[...], of_torch(job), atol=50 * scale * torch.finfo(job.dtype).eps
    )


def test_one_that_is_not_symmetric_keeps_its_columns(
    lopsided: tuple[str, ...], run_job: Callable[..., Result]
):
    result = run_job(*lopsided, "chunk_size=5")
    assert result.axis == "columns"
    expected = torch.arange(36, dtype=torch.float64).reshape(6, 6).sin()
    np.testing.assert_allclose(result[...], expected.numpy(), rtol=1e-12)


@pytest.mark.parametrize("option", ["verify='off'", "verify=sample", "shard=0/1"])
def test_without_the_products_nothing_is_assumed(
    option: str, resolved: Callable[..., Job], quiet: Any
):
    from jobs.execution.execute import execute

    job = resolved(*QUARTIC, option)
    path = execute(job, quiet)
    with open_result(path, allow_partial=True) as result:
        assert result.axis == "columns"


@pytest.mark.parametrize(
    ("first", "second", "axis"),
    [("probe", "'off'", "rows"), ("'off'", "probe", "columns"), ("probe", "sample", "rows")],
)
def test_what_was_begun_keeps_its_axis(
    first: str,
    second: str,
    axis: str,
    resolved: Callable[..., Job],
    run_job: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
):
    begun = resolved(*QUARTIC, "chunk_size=3", f"verify={first}")
    with monkeypatch.context() as patched:
        # Not one of those that are measured: in the middle, and what follows.
        fails_at(patched, start=6)
        with pytest.raises(JobError, match="tired"):
            run_job(begun)
    assert part_path(begun.paths.result).exists()
    result = run_job(resolved(*QUARTIC, "chunk_size=3", f"verify={second}"))
    assert result.axis == axis
    assert result.execution["lines_resumed"] > 0
    np.testing.assert_allclose(result[...], of_torch(begun), rtol=1e-9, atol=1e-11)


def test_workers_write_the_same_rows(run_job: Callable[..., Result]):
    alone = run_job(*QUARTIC, "chunk_size=3", "devices=cpu:1")
    entries = alone[...]
    shared = run_job(*QUARTIC, "chunk_size=3", "devices=cpu:2", "overwrite=true", overwrite=True)
    assert shared.axis == alone.axis == "rows"
    np.testing.assert_allclose(shared[...], entries, rtol=1e-12, atol=1e-14)
