"""Errors are planted in blocks, and the check must find them; without one it must stay silent."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from autodiff_core import Block, BlockStream
from jobs.errors import JobError
from jobs.execution import dense, preparation
from jobs.execution.preparation import Prepared
from jobs.job import Job
from jobs.planning import trials
from jobs.streams import kept
from jobs.streams.stream import Stream
from outputs import Result, part_path, verify_result
from tests.support.pairs import pairs

SIZES = {
    "rosenbrock": ("n=40",),
    "mlp": ("n=12",),
    "mlp_parameters": ("n=5", "samples=4"),
    "pairwise_energy": ("n=9",),
    "gp_residual": ("n=30", "inducing=8"),
    "brusselator": ("n=5",),
    "transformer_block": ("n=4", "width=8", "heads=2"),
    "rotation_chain": ("n=20",),
    "neighbour_energy": ("n=2",),
    "convolution_stack": ("n=5",),
    "burgers": ("n=20",),
    "arrow": ("n=20",),
    "finite_elements": ("n=3",),
}
SCALARS = (
    *("rosenbrock", "mlp_parameters", "pairwise_energy", "gp_residual"),
    *("neighbour_energy", "arrow", "finite_elements"),
)
CLEAN = [("jacobian", name) for name in SIZES] + [("hessian", name) for name in SCALARS]


def flip_a_sign(values: Tensor) -> None:
    values[1, 2] *= -1


def zero_a_line(values: Tensor) -> None:
    values[1] = 0


def swap_two_lines(values: Tensor) -> None:
    values[[0, 1]] = values[[1, 0]]


def shift_by_one(values: Tensor) -> None:
    values.copy_(values.roll(1, dims=1))


def add_to_an_entry(values: Tensor) -> None:
    values[0, 0] += 1e-3


def lose_an_entry(values: Tensor) -> None:
    values[0, 0] = torch.nan


DAMAGES = [
    flip_a_sign,
    zero_a_line,
    swap_two_lines,
    shift_by_one,
    add_to_an_entry,
    lose_an_entry,
]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch, in_order: None) -> Callable[..., list[tuple[int, int]]]:
    """Damage the block that begins at a line, a number of times; gives what was computed."""

    def planted(damage: Callable[[Tensor], None], start: int, times: int) -> list[tuple[int, int]]:
        computed: list[tuple[int, int]] = []
        planned: list[Prepared] = []
        original, plan = BlockStream.block, preparation.prepare

        def prepare(*arguments: Any) -> Prepared:
            planned.clear()
            planned.append(plan(*arguments))
            return planned[-1]

        def block(self: BlockStream, first: int, last: int) -> Block:
            made = original(self, first, last)
            # Planning measures some blocks; the check itself streams products with one vector.
            if not planned or last - first == 1:
                return made
            computed.append((first, last))
            if first == start and computed.count((first, last)) <= times:
                pieces = torch.cat(made.pieces, dim=1)
                damage(pieces)
                sizes = [piece.shape[1] for piece in made.pieces]
                return dataclasses.replace(made, pieces=tuple(pieces.split(sizes, dim=1)))
            return made

        monkeypatch.setattr(dense, "prepare", prepare)
        monkeypatch.setattr(BlockStream, "block", block)
        return computed

    return planted


def overrides(operation: str, strategy: str, problem: str, *more: str) -> list[str]:
    sizes = [f"function.{size}" for size in SIZES[problem]]
    return [f"op={operation}", f"strategy={strategy}", f"function={problem}", *sizes, *more]


@pytest.mark.parametrize(
    ("case", "strategy", "dtype"),
    pairs(CLEAN, ["vectorize", "forward-mode"], ["float32", "float64"]),
)
def test_an_undisturbed_job_passes(
    case: tuple[str, str], strategy: str, dtype: str, run_job: Callable[..., Result]
) -> None:
    operation, problem = case
    result = run_job(*overrides(operation, strategy, problem, f"dtype={dtype}", "chunk_size=7"))
    figures = result.execution["verification"]
    # The columns of a symmetric matrix are its rows.
    is_by_rows = strategy == "vectorize" or operation == "hessian"
    assert result.axis == ("rows" if is_by_rows else "columns")
    assert figures["kind"] == "probe"
    assert figures["lines_checked"] == result.shape[0 if is_by_rows else 1]
    assert figures["largest_relative_error"] < figures["tolerance"] / 10


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_block_that_fails_once_is_computed_again(
    damage: Callable[[Tensor], None],
    strategy: str,
    plant: Callable[..., list[tuple[int, int]]],
    run_job: Callable[..., Result],
) -> None:
    expected = run_job(*overrides("jacobian", "reverse-loop", "mlp"))[...]
    computed = plant(damage, start=4, times=1)
    result = run_job(*overrides("jacobian", strategy, "mlp", "chunk_size=4"))
    assert computed == [(0, 4), (4, 8), (4, 8), (8, 12)]
    np.testing.assert_allclose(result[...], expected, rtol=1e-10, atol=1e-12)
    assert result.execution["verification"]["lines_checked"] == 12


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
def test_a_bad_block_of_the_plan_is_computed_again(
    strategy: str, run_job: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run_job(*overrides("jacobian", "reverse-loop", "mlp"))[...]
    bad: list[Block] = []

    def keep(stream: Stream, block: Block) -> None:
        bad.append(dataclasses.replace(block, pieces=tuple(piece + 1 for piece in block.pieces)))
        kept.keep(stream, bad[-1])

    monkeypatch.setattr(trials, "keep", keep)
    result = run_job(*overrides("jacobian", strategy, "mlp", "chunk_size=4"))
    assert bad
    np.testing.assert_allclose(result[...], expected, rtol=1e-10, atol=1e-12)
    assert result.execution["verification"]["lines_checked"] == 12


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_block_that_fails_twice_ends_the_job_and_is_named(
    damage: Callable[[Tensor], None],
    strategy: str,
    plant: Callable[..., list[tuple[int, int]]],
    resolved: Callable[..., Job],
    run_job: Callable[..., Result],
) -> None:
    job = resolved(*overrides("jacobian", strategy, "mlp", "chunk_size=4"))
    computed = plant(damage, start=4, times=1000)
    axis = "rows" if strategy == "vectorize" else "columns"
    with pytest.raises(JobError, match=rf"{axis} 4 to 8 disagree with an independent .*twice"):
        run_job(job)
    assert computed == [(0, 4), (4, 8), (4, 8)]
    # The block before it is kept, the bad one is not.
    assert not job.paths.result.exists()
    assert part_path(job.paths.result).exists()


def test_what_failed_continues_when_the_error_is_gone(
    plant: Callable[..., list[tuple[int, int]]],
    resolved: Callable[..., Job],
    run_job: Callable[..., Result],
) -> None:
    job = resolved(*overrides("hessian", "vectorize", "rosenbrock", "chunk_size=10"))
    computed = plant(zero_a_line, start=20, times=2)
    with pytest.raises(JobError, match="rows 20 to 30"):
        run_job(job)
    before = len(computed)
    result = run_job(job)
    assert computed[before:] == [(20, 30), (30, 40)]
    assert result.execution["lines_resumed"] == 20


@pytest.mark.parametrize("operation", ["vjp", "jvp", "hvp", "vhp"])
def test_an_error_in_a_product_is_found(
    operation: str,
    plant: Callable[..., list[tuple[int, int]]],
    resolved: Callable[..., Job],
    run_job: Callable[..., Result],
) -> None:
    job = resolved(
        *overrides(operation, "vectorize", "gp_residual", "vectors.count=4", "chunk_size=4")
    )
    plant(flip_a_sign, start=0, times=2)
    with pytest.raises(JobError, match="rows 0 to 4 disagree"):
        run_job(job)
    assert not part_path(job.paths.result).exists()


def test_a_batching_rule_that_is_wrong_is_replaced_and_recorded(
    directory: Path, run_job: Callable[..., Result], said
) -> None:
    # The derivative of torch.cdist under vmap is wrong in torch 2.13, without an error.
    (directory / "distances.py").write_text(
        "import torch\n"
        "def f(x): return torch.cdist(x, x.flip(0) * 2)\n"
        "def point(): return torch.randn(4, 3, generator=torch.Generator().manual_seed(0))\n"
    )
    target = ["function=python", "function.target=distances:f", "function.point=distances:point"]
    result = run_job("op=jacobian", "strategy=vectorize", *target, "chunk_size=5")
    expected = run_job("op=jacobian", "strategy=reverse-loop", *target)
    np.testing.assert_allclose(result[...], expected[...], rtol=1e-10, atol=1e-14)
    (fallback,) = result.execution["fallbacks"]
    assert fallback.startswith("vectorize: one vector at a time, because ")
    assert "note: vectorize" in said.getvalue()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
@pytest.mark.parametrize("operation", ["jacobian", "hessian", "jvp"])
def test_a_derivative_that_is_zero_up_to_rounding_passes(
    operation: str,
    strategy: str,
    dtype: str,
    directory: Path,
    run_job: Callable[..., Result],
) -> None:
    (directory / "zero.py").write_text("def total(x):\n    return x.softmax(0).sum()\n")
    result = run_job(
        f"op={operation}",
        f"strategy={strategy}",
        f"dtype={dtype}",
        "function=python",
        "function.target=zero:total",
        "inputs=random",
        "inputs.shapes=[[50]]",
    )
    assert np.abs(result[...]).max() < 1e-6
    assert result.execution["verification"]["kind"] == "probe"
    assert verify_result(result.path).ok
