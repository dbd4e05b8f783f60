"""Whether strategies agree: results of the same derivative, compared matrix against matrix."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.paths import RESULT
from outputs import (
    Result,
    ResultError,
    SparseResult,
    compare_results,
    compare_sparse_results,
    is_sparse_result,
    open_result,
    open_sparse_result,
)

# The one that survives most functions is what the others are held against.
_REFERENCE = "reverse-loop"


@dataclass(frozen=True)
class Agreement:
    """Two results of one derivative.

    Attributes:
        derivative: Operation, function and shape.
        reference: Strategy and directory of the result that is held against.
        other: Those of the result that is compared with it.
        relative: The largest difference relative to the largest entry.
        tolerance: What is allowed: the square root of the rounding unit of the shorter dtype, as
            for the check of a result.
        place: Row and column of the largest difference; None where there is none.
        problem: Why they cannot be compared; empty if they were.
    """

    derivative: str
    reference: str
    other: str
    relative: float
    tolerance: float
    place: tuple[int, int] | None
    problem: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the difference is one of rounding."""
        return not self.problem and self.relative <= self.tolerance


def compare_strategies(directory: Path) -> list[Agreement]:
    """Compare the whole results below a directory that are of the same function and point.

    Results are the same derivative where operation, function, shape, point and vectors are the
    same. Each is compared with the one by `reverse-loop`, or else with the first.
    """
    groups: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in sorted(directory.rglob(RESULT)):
        try:
            with _opened(path) as result:
                groups[_key(result)].append(path)
        # Shards and damaged files; the report's table names the latter.
        except ResultError:
            continue
    return [found for paths in groups.values() for found in _compared(paths, directory)]


def _opened(path: Path) -> Result | SparseResult:
    return open_sparse_result(path) if is_sparse_result(path) else open_result(path)


def _key(result: Result | SparseResult) -> tuple[str, ...]:
    """What two results share that can be compared: sparse ones with sparse ones."""
    vectors = result.vectors if isinstance(result, Result) else {}
    digests = [_digest(arrays) for arrays in (result.points, vectors)]
    kind = type(result).__name__
    return (kind, result.operation, result.function, str(result.shape), *digests)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _compared(paths: list[Path], directory: Path) -> Iterator[Agreement]:
    if len(paths) < 2:
        return
    paths = sorted(paths, key=lambda path: (_strategy(path) != _REFERENCE, path))
    with _opened(paths[0]) as reference:
        for path in paths[1:]:
            with _opened(path) as other:
                yield _agreement(reference, other, directory)


def _strategy(path: Path) -> str:
    with _opened(path) as result:
        return result.strategy


def _agreement(
    reference: Result | SparseResult, other: Result | SparseResult, directory: Path
) -> Agreement:
    shape = " x ".join(map(str, reference.shape))
    names = _name(reference, directory), _name(other, directory)
    derivative = f"{reference.operation} of {reference.function}, {shape}"
    unit = max(_rounding_unit(result.dtype) for result in (reference, other))
    try:
        if isinstance(reference, SparseResult) and isinstance(other, SparseResult):
            found = compare_sparse_results(reference, other)
        else:
            assert isinstance(reference, Result)
            assert isinstance(other, Result)
            found = compare_results(reference, other)
    except ResultError as error:
        return Agreement(derivative, *names, float("nan"), unit**0.5, None, str(error))
    return Agreement(derivative, *names, found.relative, unit**0.5, found.place)


def _name(result: Result | SparseResult, directory: Path) -> str:
    return f"{result.strategy} ({result.path.parent.relative_to(directory.absolute())})"


def _rounding_unit(dtype: np.dtype) -> float:
    return float(np.finfo(dtype).eps) if dtype.kind in "fc" else 0.0
