"""Summarise the jobs below a directory from their results or, without a result, their status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.paths import RESULT, STATUS
from jobs.records.status_file import JobStatus
from outputs import (
    Result,
    ResultError,
    SparseResult,
    is_sparse_result,
    open_result,
    open_sparse_result,
)

# Records are JSON, whose numbers have no limits, and Python's reader accepts NaN and Infinity.
_MOST = 1e18


@dataclass(frozen=True)
class JobSummary:
    """A job in a report; facts that are not known are empty or None.

    Attributes:
        job: The directory of the run, relative to the directory of the report.
        state: ``finished``, ``unreadable``, or the state of the status file.
        operation: The operation, such as ``hessian``.
        function: The function's name and parameters.
        strategy: The strategy's name.
        matrix: Shape and dtype of the matrix as text; of a shard also its lines.
        device: The name of the device that computed.
        host: The name of the machine.
        seconds: The time of computing and writing.
        entries_per_second: The entries of the matrix per second of that time.
        peak_memory_bytes: The peak of memory in use, of the process or of the device.
        chunk_size: The number of rows or columns computed at once.
        fallbacks: The fallbacks to slower methods, as sentences.
        error: The largest relative error that the verification found; None if nothing was
            verified.
        tolerance: The largest relative error that the verification allows.
        verification: The state of verification, such as ``partly verified``; empty before the
            job has finished.
        verification_reason: What was compared and how it went, or why nothing was.
        message: Why the job failed; empty if it did not.
    """

    job: str
    state: str
    operation: str = ""
    function: str = ""
    strategy: str = ""
    matrix: str = ""
    device: str = ""
    host: str = ""
    seconds: float | None = None
    entries_per_second: float | None = None
    peak_memory_bytes: int | None = None
    chunk_size: int | None = None
    fallbacks: tuple[str, ...] = ()
    error: float | None = None
    tolerance: float | None = None
    verification: str = ""
    verification_reason: str = ""
    message: str = ""


def summarise(directory: Path) -> list[JobSummary]:
    """Summarise every job below a directory with a result or a status, in order of their names."""
    runs = {path.parent for name in (RESULT, STATUS) for path in directory.rglob(name)}
    return [summary_of(run, directory) for run in sorted(runs)]


def summary_of(run: Path, directory: Path) -> JobSummary:
    """Summarise the job of a run, named relative to a directory above it."""
    name = str(run.relative_to(directory))
    path = run / RESULT
    if path.exists():
        try:
            if is_sparse_result(path):
                with open_sparse_result(path) as sparse:
                    return _of_sparse(name, sparse)
            with open_result(path, allow_partial=True) as result:
                return _of_result(name, result)
        # Whatever one file contains must not hide the others.
        except (ResultError, OSError, MemoryError) as error:
            return JobSummary(name, "unreadable", message=str(error) or "out of memory")
    return _of_status(name, JobStatus.read(run / STATUS))


def _of_result(name: str, result: Result) -> JobSummary:
    rows, columns = result.matrix_shape
    across = columns if result.axis == "rows" else rows
    lines = _number(result.execution, "lines_computed")
    shard = "" if result.shard is None else f", shard {result.shard}"
    matrix = f"{' x '.join(map(str, result.shape))} {result.dtype}{shard}{_selection(result)}"
    if result.structure == "blocks":
        matrix = f"{len(result.groups)} diagonal blocks of {rows} x {rows} {result.dtype}"
    elif result.is_ragged:
        matrix = f"{result.point_count} points of different sizes, {rows} rows {result.dtype}"
    elif result.structure != "full":
        matrix = f"{result.structure} of {rows} x {rows} {result.dtype}"
    return _finished(name, result, matrix, lines and lines * across)


def _of_sparse(name: str, result: SparseResult) -> JobSummary:
    rows, columns = result.shape
    matrix = f"{rows} x {columns} {result.dtype}, {result.entries} entries{_selection(result)}"
    return _finished(name, result, matrix, result.entries)


def _selection(result: Result | SparseResult) -> str:
    return "" if result.selection is None else f": {result.selection}"


def _finished(
    name: str, result: Result | SparseResult, matrix: str, entries: float | None
) -> JobSummary:
    record, origin, verdict = result.execution, result.provenance, result.verdict
    checked = _mapping(record, "verification")
    fallbacks = record.get("fallbacks")
    seconds = _number(record, "seconds")
    rate = entries / seconds if seconds and entries else None
    return JobSummary(
        job=name,
        state="finished",
        operation=result.operation,
        function=result.function,
        strategy=result.strategy,
        matrix=matrix,
        device=str(record.get("device", origin.get("device", ""))),
        host=str(origin.get("host", "")),
        seconds=seconds,
        entries_per_second=rate,
        peak_memory_bytes=_whole(_number(record, "peak_memory_bytes")),
        chunk_size=_whole(_number(record, "chunk_size")),
        fallbacks=tuple(map(str, fallbacks)) if isinstance(fallbacks, list) else (),
        error=_number(checked, "largest_relative_error"),
        tolerance=_number(checked, "tolerance"),
        verification=verdict.state.value,
        verification_reason=verdict.reason,
    )


def _of_status(name: str, status: JobStatus) -> JobSummary:
    summary = JobSummary(
        job=name,
        state=status.state_now(),
        operation=status.operation,
        function=status.function,
        strategy=status.strategy,
        device=status.device,
        host=status.host,
        seconds=status.seconds or None,
        peak_memory_bytes=_whole(_number(status.other, "peak_memory_bytes")),
        chunk_size=_whole(_number(status.other, "chunk_size")),
        message=status.message,
    )
    shape, dtype = status.other.get("shape"), status.other.get("dtype", "")
    if isinstance(shape, list) and [type(extent) for extent in shape] == [int, int]:
        return replace(summary, matrix=f"{shape[0]} x {shape[1]} {dtype}".strip())
    return summary


def _number(record: Mapping[str, Any], name: str) -> float | None:
    """Return a number of a record; None if it has none, or one that no measurement yields."""
    value: Any = record.get(name)
    return float(value) if type(value) in (int, float) and abs(value) < _MOST else None


def _mapping(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, Mapping) else {}


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
