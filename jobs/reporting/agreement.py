"""Check whether strategies agree, by comparing the matrices of results of the same derivative."""

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
    VerificationState,
    compare_results,
    compare_sparse_results,
    is_sparse_result,
    open_result,
    open_sparse_result,
)

# Other strategies are compared with the most widely applicable one.
_REFERENCE = "reverse-loop"


@dataclass(frozen=True)
class Agreement:
    """The comparison of two results of one derivative.

    Attributes:
        derivative: Operation, function and shape, as text.
        reference: Strategy and directory of the reference result, and its state unless verified.
        other: Strategy and directory of the result that is compared with the reference.
        relative: The largest difference relative to the largest entry.
        tolerance: The largest `relative` of results that agree: the square root of the rounding
            unit of the less precise dtype, as in the check of a result.
        place: Row and column of the largest difference; None if there is no difference.
        problem: Why the results cannot be compared; empty if they can.
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
        """Whether the difference is within rounding errors."""
        return not self.problem and self.relative <= self.tolerance


def compare_strategies(directory: Path) -> list[Agreement]:
    """Compare the complete results below a directory that are of the same derivative.

    Two results are of the same derivative if operation, function, point, vectors, and rows and
    columns are equal. Each result is compared with that of `reverse-loop`, or with the first if
    there is none.
    """
    groups: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in sorted(directory.rglob(RESULT)):
        try:
            with _opened(path) as result:
                groups[_key(result)].append(path)
        # Shards, and damaged files, which the table of jobs names.
        except (ResultError, OSError, MemoryError):
            continue
    return [found for paths in groups.values() for found in _compared(paths, directory)]


def _opened(path: Path) -> Result | SparseResult:
    return open_sparse_result(path) if is_sparse_result(path) else open_result(path)


def _key(result: Result | SparseResult) -> tuple[str, ...]:
    """Return what two results must have in common to be compared."""
    drawn = str(result.drawn_vectors or "")
    vectors = {} if drawn else result.vectors
    lines = {"rows": result.row_numbers, "columns": result.column_numbers}
    digests = [_digest(arrays) for arrays in (result.points, vectors, lines)]
    kind, others = type(result).__name__, (result.structure, str(result.tensors_of_blocks), drawn)
    return (kind, result.operation, result.function, str(result.shape), *others, *digests)


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
    except (ResultError, OSError, MemoryError) as error:
        problem = str(error) or "out of memory"
        return Agreement(derivative, *names, float("nan"), unit**0.5, None, problem)
    return Agreement(derivative, *names, found.relative, unit**0.5, found.place)


def _name(result: Result | SparseResult, directory: Path) -> str:
    # A damaged record is one line of the table, and no end of it.
    try:
        state = result.verdict.state.value
    except ResultError:
        state = "damaged"
    named = f"{result.strategy} ({result.path.parent.relative_to(directory.absolute())})"
    return named if state == VerificationState.VERIFIED.value else f"{named}, {state}"


def _rounding_unit(dtype: np.dtype) -> float:
    return float(np.finfo(dtype).eps) if dtype.kind in "fc" else 0.0
