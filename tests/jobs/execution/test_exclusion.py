"""Under auto a strategy that is wrong or fails in a block is left out, and the job continues."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from autodiff_core.sparse import SparsityPattern
from jobs.errors import JobError, StrategyError
from jobs.execution import local_source
from jobs.execution.execute import execute
from jobs.job import Job
from jobs.records.status_file import JobStatus
from jobs.reporting.terminal import Display
from outputs import (
    Result,
    ResultWriter,
    open_result,
    open_sparse_result,
    part_path,
    verify_result,
)

# Runs are interrupted at one of their lines.
pytestmark = pytest.mark.usefixtures("in_order")

# Batched products of exactly 3 vectors are wrong: in chunks of 7 the last of 24 lines.
FAULTY = """
import multiprocessing, os, signal, sys
import torch

# No engine knows the operator, so that it is batched by its own rule.
@torch.library.custom_op(f"{__name__}::scaled", mutates_args=())
def scaled(tangent: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return tangent * scale

@scaled.register_fake
def _(tangent, scale): return torch.empty_like(tangent)

@scaled.register_vmap
def _(info, in_dims, tangent, scale):
    batched = tangent.movedim(in_dims[0], 0) * scale
    return 1.5 * batched if info.batch_size == 3 else batched, 0

class Sine(torch.autograd.Function):
    generate_vmap_rule = True
    @staticmethod
    def forward(x): return x.sin()
    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)
    @staticmethod
    def backward(ctx, cotangent): return scaled(cotangent, ctx.saved_tensors[0].cos())
    @staticmethod
    def jvp(ctx, tangent): return scaled(tangent, ctx.saved_tensors[0].cos())

class Contradictory(Sine):
    @staticmethod
    def backward(ctx, cotangent): return 2 * cotangent
    @staticmethod
    def jvp(ctx, tangent): return 3 * tangent

def contradictory(x):
    return Contradictory.apply(x)

def deadly_in_workers(x):
    is_dual = torch.autograd.forward_ad.unpack_dual(x).tangent is not None
    if is_dual and multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGSEGV)
    return function(x)

def failing_later(x, began=[]):
    frame = sys._getframe()
    while frame is not None and not began:
        began.extend([True] if frame.f_code.co_name == "compute_block" else [])
        frame = frame.f_back
    if began:
        raise ValueError("no more evaluations")
    return function(x)

def function(x):
    return Sine.apply(x) * x.sum()

def banded(x):
    return Sine.apply(x)

def point(): return torch.linspace(0.5, 1.5, 24, dtype=torch.float64)
"""
TARGET = ("op=jacobian", "function=python", "chunk_size=7")


_numbers = itertools.count()


def expected() -> np.ndarray:
    x = np.linspace(0.5, 1.5, 24)
    return np.diag(np.cos(x)) * x.sum() + np.sin(x)[:, None]


@pytest.fixture
def faulty(directory: Path) -> Callable[..., tuple[str, ...]]:
    def options(*more: str, function: str = "function") -> tuple[str, ...]:
        # Operators are registered under the name of the module, once in a process.
        name = f"faulty{next(_numbers)}"
        (directory / f"{name}.py").write_text(FAULTY)
        point = f"function.point=./{name}.py:point"
        return (*TARGET, f"function.target=./{name}.py:{function}", point, *more)

    return options


@pytest.mark.parametrize("devices", ["cpu", "cpu:2"])
def test_a_strategy_that_fails_the_check_is_left_out(
    run_job: Callable[..., Result],
    faulty: Callable[..., tuple[str, ...]],
    said: io.StringIO,
    devices: str,
) -> None:
    result = run_job(*faulty(f"devices={devices}"))
    assert np.allclose(result[:], expected(), rtol=1e-13)
    assert verify_result(result.path).ok
    # Both batched strategies are wrong; the loops are right.
    assert result.strategy in ("forward-loop", "reverse-loop")
    assert set(result.execution["excluded"]) <= {"forward-mode", "vectorize"}
    # What they had written may be as wrong.
    assert result.execution["lines_resumed"] == 0
    for strategy in result.execution["excluded"]:
        (note,) = (each for each in result.execution["fallbacks"] if f" {strategy} is" in each)
        assert "to 24 disagree with an independent product" in note
        assert said.getvalue().count(f"note: {note}") == 1


@pytest.fixture
def fails_once(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """Let the last of three blocks fail by the first strategy; return the blocks that failed."""
    compute = local_source.compute_block
    tried: list[range] = []
    failed: list[range] = []

    def failing(job: Job, stream: Any, check: Any, lines: range) -> Any:
        tried.append(lines)
        if len(tried) == 3:
            failed.append(lines)
            raise StrategyError("planted")
        return compute(job, stream, check, lines)

    monkeypatch.setattr(local_source, "compute_block", failing)
    return failed


def test_blocks_of_a_strategy_that_raises_are_kept_for_one_of_the_same_axis(
    run_job: Callable[..., Result],
    faulty: Callable[..., tuple[str, ...]],
    fails_once: list[range],
    directory: Path,
) -> None:
    vectors = np.random.default_rng(0).standard_normal((24, 24))
    np.save(directory / "vectors.npy", vectors)
    given = ("op=vjp", "vectors=numpy", "vectors.path=vectors.npy", "chunk_size=8")
    result = run_job(*faulty(*given))
    assert [len(each) for each in fails_once] == [8]
    assert np.allclose(result[:], vectors @ expected(), rtol=1e-12)
    assert verify_result(result.path).ok
    first, second = result.strategy.split(", ")
    assert {first, second} == {"vectorize", "reverse-loop"}
    assert result.execution["lines_resumed"] == 16
    assert result.execution["excluded"] == {first: "planted"}


def test_blocks_of_the_other_axis_are_computed_again(
    run_job: Callable[..., Result],
    resolved: Callable[..., Job],
    faulty: Callable[..., tuple[str, ...]],
    fails_once: list[range],
) -> None:
    without = {"vectorize": "as a test has it", "forward-loop": "as a test has it"}
    result = run_job(replace(resolved(*faulty("chunk_size=8")), excluded=without))
    assert np.allclose(result[:], expected(), rtol=1e-13)
    assert verify_result(result.path).ok
    assert result.execution["lines_resumed"] == 0
    by = {"forward-mode": "columns", "reverse-loop": "rows"}
    first = next(each for each in by if each in result.execution["excluded"])
    assert result.strategy == next(each for each in by if each != first)
    again = f"what {first} had computed by {by[first]} is computed again by {by[result.strategy]}"
    assert again in result.execution["fallbacks"]


def test_what_was_left_out_of_an_unfinished_result_stays_left_out(
    run_job: Callable[..., Result],
    resolved: Callable[..., Job],
    faulty: Callable[..., tuple[str, ...]],
    fails_once: list[range],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = resolved(*faulty("op=vjp", "vectors.count=24", "chunk_size=8"))
    monkeypatch.setattr(ResultWriter, "finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_job(job)
    monkeypatch.undo()
    assert fails_once
    (left_out,) = JobStatus.read(job.paths.status).other["excluded"]
    result = run_job(job)
    assert result.strategy.startswith(f"{left_out}, ")
    assert set(result.execution["excluded"]) == {left_out}
    assert result.execution["lines_resumed"] == 24


def interrupted(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_a_strategy_that_was_asked_for_is_not_replaced(
    run_job: Callable[..., Result],
    resolved: Callable[..., Job],
    faulty: Callable[..., tuple[str, ...]],
) -> None:
    job = resolved(*faulty("strategy=vectorize"))
    with pytest.raises(JobError, match="rows 21 to 24 disagree") as caught:
        run_job(job)
    assert "forward-mode, reverse-loop, forward-loop, and auto" in str(caught.value)
    with open_result(part_path(job.paths.result), allow_partial=True) as begun:
        assert begun.mask.sum() == 21


def test_each_strategy_is_named_with_its_reason_when_none_is_left(
    run_job: Callable[..., Result],
    resolved: Callable[..., Job],
    faulty: Callable[..., tuple[str, ...]],
) -> None:
    # Both modes are wrong, each in another way.
    options = faulty(function="contradictory")
    job = resolved(*options)
    with pytest.raises(JobError, match=r"^no strategy can compute this job:\n") as caught:
        run_job(job)
    for strategy in ("forward-mode", "vectorize", "forward-loop", "reverse-loop"):
        assert strategy in str(caught.value)
    assert "disagree with an independent product" in str(caught.value)
    assert not list(job.paths.run.glob("*.h5*"))


def test_a_function_that_fails_by_itself_is_not_tried_by_other_strategies(
    run_job: Callable[..., Result], faulty: Callable[..., tuple[str, ...]], said: io.StringIO
) -> None:
    # At many points each block evaluates it.
    np.save("points.npy", np.random.default_rng(0).standard_normal((40, 24)))
    options = ["points=leading", "inputs=numpy", "inputs.path=points.npy", "chunk_size=24"]
    given = [each for each in faulty(*options, function="failing_later") if "point=" not in each]
    with pytest.raises(JobError, match="ValueError: no more evaluations"):
        run_job(*given)
    assert "left out" not in said.getvalue()


def test_a_strategy_that_ends_workers_is_left_out(
    run_job: Callable[..., Result], faulty: Callable[..., tuple[str, ...]]
) -> None:
    options = faulty("devices=cpu:2", "chunk_size=8", function="deadly_in_workers")
    result = run_job(*options)
    assert np.allclose(result[:], expected(), rtol=1e-13)
    assert result.strategy in ("vectorize", "reverse-loop")
    for reason in result.execution.get("excluded", {}).values():
        assert "was killed (SIGSEGV)" in reason


def test_products_of_a_sparse_matrix_continue_too(
    run_sparse: Callable[..., Any], faulty: Callable[..., tuple[str, ...]], directory: Path
) -> None:
    near = np.abs(np.subtract.outer(np.arange(24), np.arange(24))) <= 4
    SparsityPattern.from_scipy(scipy.sparse.csr_array(near)).save(directory / "near.npz")
    options = faulty("sparsity=near.npz", "chunk_size=6", function="banded")
    with open_sparse_result(run_sparse(*options)) as result:
        found = result.as_scipy().toarray()
        assert np.allclose(found, np.diag(np.cos(np.linspace(0.5, 1.5, 24))), rtol=1e-13)
        assert any("is left out" in each for each in result.execution["fallbacks"])


@pytest.fixture
def run_sparse(resolved: Callable[..., Job], quiet: Display) -> Callable[..., Path]:
    return lambda *options: execute(resolved(*options), quiet)
