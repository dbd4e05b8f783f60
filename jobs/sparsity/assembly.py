"""Assemble a sparse matrix from its compressed products."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from autodiff_core.sparse import SparsityPattern, decompressed
from jobs.errors import JobError
from jobs.functions.conversions import conversion_figures
from jobs.functions.failures import explaining_failures
from jobs.job import Job
from jobs.records.description import describe_sparse, require_storage
from jobs.sparsity.detection import Sparsity, colouring_file, function_value, seconds_since
from jobs.streams.stream import stored_dtype
from jobs.verification.differences import differences_of_job
from jobs.verification.routes import Routes
from jobs.verification.sparse_check import Matrix, check_sparse
from jobs.verification.verdict import (
    contradiction,
    difference_figures,
    with_left_out_differences,
)
from outputs import (
    Result,
    ResultDescription,
    ResultWriter,
    TensorSpec,
    Verdict,
    VerificationState,
    figures_verdict,
    open_result,
    write_sparse,
)

_MOST_FROZEN = 100
"""The largest number of places whose frozen values the record lists."""


def assemble(job: Job, sparsity: Sparsity, products: list[Path]) -> tuple[Verdict, dict[str, str]]:
    """Read the entries out of the finished products, verify the matrix and write it.

    Args:
        job: The job.
        sparsity: Its sparsity, with a colouring.
        products: The results of the products, those from the right first.

    Returns:
        The verdict on the matrix, and the lines, by their titles, that the terminal shows.

    Raises:
        JobError: The matrix fails the check, or an entry is not finite and the policy says so.
    """
    colouring = sparsity.colouring
    assert colouring is not None
    started = time.perf_counter()
    opened = [open_result(path) for path in products]
    try:
        arrays = [_mapped(result) for result in opened]
        records = [result.execution for result in opened]
        strategies = [result.strategy for result in opened]
        verdicts = [result.verdict for result in opened]
    finally:
        for result in opened:
            result.close()
    pattern = colouring.pattern
    data = decompressed(colouring, arrays)
    dtype = job.dtype.to_complex() if np.iscomplexobj(data) else job.dtype
    require_storage(job, dtype)
    dtype = job.storage or dtype
    data = data.astype(stored_dtype(dtype), copy=False)
    is_diagonal = job.structure == "diagonal"
    # Entries beside the diagonal are checked, and not kept.
    kept = diagonal_of(pattern) if is_diagonal else np.arange(pattern.entries)
    nonfinite = _count_nonfinite(job, pattern, kept[~np.isfinite(data[kept])])
    matrix = Matrix(pattern.indptr, pattern.indices, data, pattern.shape)
    with explaining_failures(job.function):
        value = function_value(job)
        # Products have compared the function with differences; a matrix without entries has none.
        alone = () if products else differences_of_job(job, Routes(job, value))
        check, probes = check_sparse(job, value, matrix)
    differences = [each for record in records for each in record.get("differences", [])]
    differences += difference_figures(alone)
    found = _verdict(job, matrix, check, differences, verdicts)
    if seen := contradiction(job, alone):
        found = replace(found, reason=seen)
    check = found.record() | check
    execution = _execution(sparsity, records, check, nonfinite, seconds_since(started))
    execution |= {
        "conversions": conversion_figures(job.conversions),
        "notes": [*job.notes, *sparsity.notes],
        "differences": difference_figures(alone),
    }
    description = describe_sparse(job, value, ", ".join(dict.fromkeys(strategies)), dtype, probes)
    if is_diagonal:
        _write_diagonal(job, description, pattern, kept, data, execution)
    else:
        _write(job, description, sparsity, data, execution)
    for path in products:
        shutil.rmtree(path.parent, ignore_errors=True)
    colouring_file(job).unlink(missing_ok=True)
    share = pattern.entries / max(1, pattern.shape[0] * pattern.shape[1])
    return found, {
        "matrix": f"{'the diagonal of ' if is_diagonal else ''}/{job.operation}, "
        f"{pattern.shape[0]} rows x {pattern.shape[1]} columns, "
        f"{pattern.entries} entries ({share:.2g} of all)",
        "products": f"{colouring.colours}, {colouring.kind} colouring",
    }


def _verdict(
    job: Job,
    matrix: Matrix,
    check: dict[str, Any],
    differences: list[dict[str, Any]],
    products: list[Verdict],
) -> Verdict:
    """Return what is known of the matrix: its products check it, and theirs the differences."""
    for product in products:
        if product.state is VerificationState.CONTRADICTED:
            return product
    lines = check.get("lines_checked", 0) + check.get("lines_without_finite_product", 0)
    if check["kind"] == "none":
        lines = 0 if 0 in matrix.shape else matrix.shape[0]
    found = figures_verdict(check, differences, lines, "rows and columns")
    return with_left_out_differences(job, found)


def _count_nonfinite(job: Job, pattern: SparsityPattern, bad: np.ndarray) -> int:
    """Return the number of entries that are not finite.

    Args:
        job: The job.
        pattern: The pattern.
        bad: The places of these entries in the pattern.

    Raises:
        JobError: There is one and the policy of the job is ``fail``.
    """
    if bad.size and job.nonfinite == "fail":
        row = int(np.searchsorted(pattern.indptr, bad[0], side="right")) - 1
        raise JobError(
            f"{bad.size} entries are not finite, the first at row {row}, column "
            f"{pattern.indices[bad[0]]}; nonfinite=record writes them"
        )
    return int(bad.size)


def _execution(
    sparsity: Sparsity,
    records: list[dict[str, Any]],
    check: dict[str, Any],
    nonfinite: int,
    assembly_seconds: float,
) -> dict[str, Any]:
    """Return what the result keeps of the run: the records of the products, and their sums."""
    colouring = sparsity.colouring
    assert colouring is not None
    pattern = colouring.pattern
    return {
        "sparsity": {
            "found": sparsity.reason,
            "entries": pattern.entries,
            "colouring": colouring.kind,
            "colours": colouring.colours,
            "conservative": list(pattern.conservative),
            "frozen": list(pattern.frozen[:_MOST_FROZEN]),
            "detection_seconds": sparsity.detection_seconds,
            "colouring_seconds": sparsity.colouring_seconds,
            "assembly_seconds": assembly_seconds,
        },
        "seconds": sum(record.get("seconds", 0.0) for record in records),
        "lines_computed": colouring.colours,
        "device": records[0].get("device") if records else "",
        "peak_memory_bytes": max((r.get("peak_memory_bytes", 0) for r in records), default=0),
        "chunk_sizes": [size for record in records for size in record.get("chunk_sizes", [])],
        "fallbacks": [text for record in records for text in record.get("fallbacks", [])],
        "nonfinite": {"count": nonfinite},
        "verification": check,
        "products": records,
    }


def _write(
    job: Job,
    description: ResultDescription,
    sparsity: Sparsity,
    data: np.ndarray,
    execution: dict[str, Any],
) -> None:
    """Write the result beside its place, and let it take that place in one step."""
    colouring = sparsity.colouring
    assert colouring is not None
    pattern = colouring.pattern
    colours = {"column_colours": colouring.column_colours, "row_colours": colouring.row_colours}
    target = job.paths.result
    write_sparse(
        target,
        description,
        pattern.indptr,
        pattern.indices,
        data.__getitem__,
        kind=colouring.kind,
        colours={name: array for name, array in colours.items() if array is not None},
        execution=execution,
        is_replacing=target.exists(),  # overwrite=true
    )


def diagonal_of(pattern: SparsityPattern) -> np.ndarray:
    """Return the places of the entries of a pattern that are on its diagonal, in order."""
    rows = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))
    return np.flatnonzero(pattern.indices == rows)


def _write_diagonal(
    job: Job,
    description: ResultDescription,
    pattern: SparsityPattern,
    places: np.ndarray,
    data: np.ndarray,
    execution: dict[str, Any],
) -> None:
    """Write the entries on the diagonal, zero where the pattern has none, as rows of one column."""
    entries = np.zeros((pattern.shape[0], 1), data.dtype)
    entries[pattern.indices[places], 0] = data[places]
    column = TensorSpec("diagonal", (), description.rows[0].dtype)
    described = replace(
        description, columns=(column,), columns_are_tuple=False, structure="diagonal"
    )
    # Not in the place of the result, where an unfinished file is one that a dense job began.
    ResultWriter.discard(job.paths.replacement)
    with ResultWriter.create(job.paths.replacement, described, fsync=job.fsync) as writer:
        if len(entries):
            writer.write(0, len(entries), entries)
        writer.finish(execution, replaced=job.paths.result)


def _mapped(result: Result) -> np.ndarray:
    """Return the products, mapped where they are contiguous, so that unused ones are not read."""
    dataset = result.dataset()
    offset = dataset.id.get_offset()
    if dataset.chunks is not None or offset is None:
        return result[:]
    return np.memmap(result.path, dataset.dtype, "r", offset, dataset.shape)
