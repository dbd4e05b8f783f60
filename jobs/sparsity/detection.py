"""Find the sparsity pattern and the colouring of a job.

A sparse matrix is computed from compressed products, one for each colour, which are dense and few.
The products from each side are a job of the operation `jvp`, `hvp` or `vjp` with the classes of
colours as vectors: planned, verified, interrupted and resumed like any other, in a directory beside
the result. When they are finished, the entries are read out of them into the result, which is
verified again by products with the function's own derivative: an entry that the pattern misses
shows there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from autodiff_core.sparse import (
    Colouring,
    DetectionError,
    PatternError,
    SparsityPattern,
    colour,
    detect_sparsity,
)
from jobs.errors import ConfigurationError, JobError
from jobs.functions.batch_sum import BatchSum
from jobs.functions.failures import explaining_failures
from jobs.functions.returned_values import named_outputs
from jobs.job import Job
from jobs.machine.accelerator import seed_generators
from jobs.machine.activity import deaths_of
from jobs.records.announcements import DETECTION, trying, trying_detection
from jobs.sources.files import require_file
from jobs.sources.npz import require_archive_fits
from outputs import scratch_file

# Beyond this share of entries, a dense matrix is neither much larger than a sparse one with its
# indices, nor slower.
_DENSE_SHARE = 0.25
# Patterns of millions of entries take seconds; the rules are not meant for functions that take
# this long.
DETECTION_SECONDS = 300.0

# The arrays of a file that grow with the matrix.
_ARRAYS = ("indptr", "indices", "conservative", "frozen", "column_colours", "row_colours")


@dataclass(frozen=True)
class Sparsity:
    """What was found about the sparsity of a matrix.

    Attributes:
        colouring: The colouring; None where the dense job is better.
        reason: Why the dense job is better, or how the colouring was found, in words.
        detection_seconds: The time that detecting the pattern took.
        colouring_seconds: The time that colouring took.
        is_kept: Whether an earlier start found the colouring.
    """

    colouring: Colouring | None
    reason: str
    detection_seconds: float = 0.0
    colouring_seconds: float = 0.0
    is_kept: bool = False

    @property
    def notes(self) -> list[str]:
        """What the pattern holds of the point, as a sentence; empty if it holds nothing."""
        if self.colouring is None or not self.colouring.pattern.frozen:
            return []
        first, *others = self.colouring.pattern.frozen
        more = f", and {len(others)} more" if others else ""
        return [f"the pattern is that of this point alone: it holds {first}{more}"]


def find_sparsity(job: Job) -> Sparsity:
    """Return the colouring of a job: from its file, an earlier start, or the detected pattern.

    Args:
        job: The job; its option `sparsity` is not ``none``.

    Raises:
        JobError: The file holds no pattern or one of another shape, or the function is a sum of
            batches.
    """
    if isinstance(job.function.function, BatchSum):
        raise ConfigurationError(
            f"sparsity={job.sparsity} with loss.batch_size or function.data: the sparsity of a "
            "loss in batches is not detected; valid is sparsity=none"
        )
    kept = colouring_file(job)
    if kept.exists():
        # Its shape may be that of another version of the function, which is found later.
        return Sparsity(Colouring.load(kept), "of an earlier start", is_kept=True)
    if job.sparsity != "auto":
        found = _loaded(Path(job.sparsity), job)
        if found.kind == "star" and job.operation != "hessian":
            raise ConfigurationError(
                f"sparsity={job.sparsity}: a star colouring is for Hessians; save the pattern "
                "alone, or colour it with kind='column'"
            )
        return Sparsity(_kept(job, found), f"of {job.sparsity}")
    for death in deaths_of(str(job.paths.status)):
        if death.activity is not None and death.activity.leaves_out == DETECTION:
            return Sparsity(None, f"the pattern was not detected: {death.reason}")
    trying(job, "the function was evaluated")
    rows, columns = matrix_shape(job)
    trying_detection(job)
    started = time.perf_counter()
    try:
        with explaining_failures(job.function):
            found = _detected(job, rows, columns)
    # What is wrong with the function itself, the dense job reports.
    except JobError as error:
        reason = f"the pattern was not detected: {str(error).splitlines()[0]}"
        return Sparsity(None, reason, seconds_since(started))
    # A disk that fails is no reason to compute something else.
    if found.colouring is not None:
        _kept(job, found.colouring)
    return found


def _detected(job: Job, rows: int, columns: int) -> Sparsity:
    """Detect and colour the pattern; no colouring where the dense matrix costs less."""
    started = time.perf_counter()
    seed_generators(job.seed)
    most = max(10**6, int(_DENSE_SHARE * rows * columns))
    try:
        pattern = detect_sparsity(
            job.function.function,
            job.inputs,
            operation=job.operation,
            most_entries=min(most, 2**31 - 1),
            most_seconds=DETECTION_SECONDS,
        )
    except DetectionError as error:
        return Sparsity(None, f"the pattern was not detected: {error}", seconds_since(started))
    detection = seconds_since(started)
    share = pattern.entries / max(1, rows * columns)
    named = ""
    if pattern.conservative:
        named = f"; taken to depend on all they read: {', '.join(pattern.conservative)}"
    if share > _DENSE_SHARE:
        reason = f"{share:.0%} of the entries may differ from zero{named}"
        return Sparsity(None, reason, detection)
    started = time.perf_counter()
    symmetric = job.operation == "hessian" and pattern.is_symmetric()
    colouring = colour(pattern, symmetric=symmetric)
    if 2 * colouring.colours > min(rows, columns):
        reason = f"{colouring.colours} products would be needed of {min(rows, columns)}{named}"
        return Sparsity(None, reason, detection, seconds_since(started))
    return Sparsity(colouring, f"detected{named}", detection, seconds_since(started))


def seconds_since(started: float) -> float:
    """Return the seconds since a reading of `time.perf_counter`."""
    return time.perf_counter() - started


def matrix_shape(job: Job) -> tuple[int, int]:
    """Return the rows and columns of the matrix of a job."""
    columns = sum(tensor.numel() for tensor in job.point.values())
    if job.operation == "hessian":
        return columns, columns
    with explaining_failures(job.function):
        outputs = named_outputs(job.function, function_value(job))
    return sum(tensor.numel() for tensor in outputs.values()), columns


def function_value(job: Job) -> Any:
    """Return what the function of a job, which may take derivatives inside, returns."""
    seed_generators(job.seed)
    with torch.enable_grad():
        point = [each.detach().requires_grad_().clone() for each in job.point.values()]
        value = job.function.function(*point)
    return tree_map_only(Tensor, Tensor.detach, value)


def _loaded(path: Path, job: Job) -> Colouring:
    """Return the colouring in an .npz file, or the colouring of the pattern in it."""
    require_file("sparsity", str(path))
    require_archive_fits(f"sparsity={path}", path, _ARRAYS)
    try:
        found = Colouring.load(path)
        if _is_of_part(job, found.pattern):
            return _coloured(job, _of_part(job, found.pattern))
        _require_shape(path, job, found.pattern)
        return found
    except (PatternError, OSError, ValueError, KeyError):
        pass
    try:
        pattern = SparsityPattern.load(path)
    except (PatternError, OSError) as error:
        raise ConfigurationError(
            f"sparsity={path}: {error}; valid is an .npz file that SparsityPattern.save or "
            "Colouring.save wrote"
        ) from error
    if _is_of_part(job, pattern):
        pattern = _of_part(job, pattern)
    # Before it is coloured, which takes memory as for a matrix of its shape.
    _require_shape(path, job, pattern)
    return _coloured(job, pattern)


def _coloured(job: Job, pattern: SparsityPattern) -> Colouring:
    return colour(pattern, symmetric=job.operation == "hessian" and pattern.is_symmetric())


def _is_of_part(job: Job, pattern: SparsityPattern) -> bool:
    """Return whether a pattern is that of the whole matrix, of which a job computes a part."""
    return job.part is not None and pattern.shape == job.part.whole_shape


def _of_part(job: Job, pattern: SparsityPattern) -> SparsityPattern:
    assert job.part is not None
    rows, columns = job.part.rows.numbers, job.part.columns.numbers
    selected = SparsityPattern.from_scipy(pattern.to_scipy()[rows][:, columns])
    return replace(selected, conservative=pattern.conservative)


def _require_shape(path: Path, job: Job, pattern: SparsityPattern) -> None:
    shape, given = matrix_shape(job), pattern.shape
    if shape != given:
        raise ConfigurationError(
            f"sparsity={path}: the pattern is of a matrix of {given[0]} x {given[1]}, and this "
            f"matrix has {shape[0]} x {shape[1]}"
        )


def _kept(job: Job, colouring: Colouring) -> Colouring:
    """Keep a colouring for the workers, for later starts and for reuse in other jobs."""
    path = colouring_file(job)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with scratch_file(path) as scratch:
            colouring.save(scratch)
            scratch.replace(path)
    except OSError as error:
        raise JobError(f"{path} cannot be written: {error.strerror or error}") from error
    return colouring


def colouring_file(job: Job) -> Path:
    """Return the path of the colouring that a job keeps while it runs."""
    return job.paths.colouring
