"""Every operation, strategy and built-in problem against torch.autograd.functional."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from jobs.job import Job
from outputs import Result

SIZES = {
    "rosenbrock": ("n=7",),
    "mlp": ("n=4", "seed=1"),
    "mlp_parameters": ("n=4", "samples=2", "seed=2"),
    "pairwise_energy": ("n=5", "seed=3"),
    "gp_residual": ("n=6", "inducing=4", "seed=4"),
    "brusselator": ("n=3",),
    "transformer_block": ("n=3", "width=4", "heads=2", "seed=5"),
    "rotation_chain": ("n=5",),
}
SCALARS = ("rosenbrock", "mlp_parameters", "pairwise_energy", "gp_residual")
STRATEGIES = ("reverse-loop", "vectorize", "forward-mode")
OPERATIONS = {
    "jacobian": STRATEGIES,
    "hessian": STRATEGIES,
    "vjp": STRATEGIES[:2],
    "jvp": STRATEGIES,
    "vhp": STRATEGIES[:2],
    "hvp": STRATEGIES,
}
CASES = [
    (operation, strategy, problem)
    for operation, strategies in OPERATIONS.items()
    for strategy in strategies
    for problem in (SIZES if operation in ("jacobian", "vjp", "jvp") else SCALARS)
]
TOLERANCE = 1e-10


def assert_same(given: Any, expected: Any) -> None:
    """The same nesting, shapes, dtypes and numbers."""
    if not isinstance(expected, Tensor):
        assert isinstance(given, tuple)
        assert len(given) == len(expected)
        for part, other in zip(given, expected, strict=True):
            assert_same(part, other)
        return
    assert given.shape == expected.shape
    assert given.dtype == expected.dtype
    largest = expected.abs().max() if expected.numel() else 0
    assert not expected.numel() or (given - expected).abs().max() <= TOLERANCE * largest


def by_torch(job: Job) -> list[Any]:
    """The matrix, or the product with each of the vectors."""
    operation = getattr(torch.autograd.functional, job.operation)
    function, inputs = job.function.function, job.inputs
    if not job.vectors:
        return [operation(function, inputs)]
    stacks = job.vectors.values()
    vectors = [parts[0] if len(parts) == 1 else parts for parts in zip(*stacks, strict=True)]
    return [operation(function, inputs, vector)[1] for vector in vectors]


def overrides(problem: str, **options: object) -> list[str]:
    sizes = [f"function.{size}" for size in SIZES[problem]]
    return [f"function={problem}", *sizes, *(f"{name}={value}" for name, value in options.items())]


@pytest.mark.parametrize(("operation", "strategy", "problem"), CASES)
def test_result_agrees_with_torch(
    operation: str,
    strategy: str,
    problem: str,
    resolved: Callable[..., Job],
    run_job: Callable[..., Result],
) -> None:
    # Blocks of three lines: several blocks, over the borders of tensors, the last one smaller.
    job = resolved(*overrides(problem, op=operation, strategy=strategy, chunk_size=3))
    result = run_job(job)
    (expected,) = by_torch(job)
    assert_same(result.as_torch(), expected)
    lines = result.shape[0 if result.axis == "rows" else 1]
    figures = result.execution["verification"]
    assert figures["lines_checked"] == lines == result.execution["lines_computed"]
    assert figures["largest_relative_error"] < 1e-12
    assert result.execution["fallbacks"] == []


@pytest.mark.parametrize("operation", ["vjp", "jvp", "vhp", "hvp"])
@pytest.mark.parametrize("problem", ["gp_residual", "rosenbrock"])
def test_several_vectors_are_stacked(
    operation: str, problem: str, resolved: Callable[..., Job], run_job: Callable[..., Result]
) -> None:
    options = overrides(problem, op=operation, strategy="vectorize", chunk_size=2)
    job = resolved(*options, "vectors.count=5", "vectors.scale=2", "vectors.seed=1")
    given = run_job(job).as_torch()
    for index, expected in enumerate(by_torch(job)):
        parts = given[index] if isinstance(given, Tensor) else tuple(part[index] for part in given)
        assert_same(parts, expected)


@pytest.mark.parametrize("chunk_size", [1, 1000, "auto"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_block_size_changes_nothing(
    strategy: str,
    chunk_size: int | str,
    resolved: Callable[..., Job],
    run_job: Callable[..., Result],
) -> None:
    job = resolved(
        *overrides("gp_residual", op="hessian", strategy=strategy, chunk_size=chunk_size)
    )
    (expected,) = by_torch(job)
    assert_same(run_job(job).as_torch(), expected)


def test_compression_changes_nothing(run_job: Callable[..., Result]) -> None:
    options = overrides("brusselator", op="jacobian", strategy="vectorize")
    plain = run_job(*options)[...]
    packed = run_job(*options, "output.compression=gzip", "runs=packed")
    assert packed.compression == "gzip"
    assert (packed[...] == plain).all()
