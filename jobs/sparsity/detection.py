"""A sparse matrix by compressed products: pattern, colouring, products as jobs, and one file.

The products, one for each colour, are dense and few. Each side is a job like others, of the
operation `jvp`, `hvp` or `vjp` with the classes of colours as vectors: planned, proved, interrupted
and resumed like them, in a directory beside the result. When they are finished the entries are read
out of them into the result, which is proved again by products with the function's own derivative:
an entry that the pattern misses shows there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autodiff_core.sparse import (
    Colouring,
    DetectionError,
    PatternError,
    SparsityPattern,
    colour,
    decompressed,
    detect_sparsity,
    seeds,
    sides,
)
from jobs.errors import ConfigurationError, JobError
from jobs.functions.failures import explaining_failures
from jobs.job import Job, leaves_of
from jobs.paths import RunPaths
from jobs.records.description import describe_sparse, stored_dtype
from jobs.streams.summed import BatchSum
from jobs.verification.sparse_check import Matrix, prove_sparse
from outputs import Result, open_result, write_sparse

# Beyond, a dense matrix is not much larger than a sparse one with its indices, nor slower.
_DENSE_SHARE = 0.25
# Patterns of millions of entries take seconds; what takes this long is not what the rules are for.
DETECTION_SECONDS = 300.0
_SIDES = {"right": "columns", "left": "rows"}


@dataclass(frozen=True)
class Sparsity:
    """What was found about the sparsity of a matrix.

    Attributes:
        colouring: The colouring; None where the dense job is better.
        reason: Why it is, or how the colouring was found, in words.
        detection_seconds: How long detecting the pattern took.
        colouring_seconds: How long colouring took.
    """

    colouring: Colouring | None
    reason: str
    detection_seconds: float = 0.0
    colouring_seconds: float = 0.0


def find_sparsity(job: Job) -> Sparsity:
    """The colouring of a job: that of its file, of an earlier start, or of the detected pattern.

    Args:
        job: The job; its option `sparsity` is not ``none``.

    Raises:
        JobError: The file holds none, or one of another shape, or the function is a sum of batches.
    """
    if isinstance(job.function.function, BatchSum):
        raise ConfigurationError(
            f"sparsity={job.sparsity} loss.batch_size: the sparsity of a loss in batches is not "
            "detected; valid is sparsity=none"
        )
    kept = colouring_file(job)
    if kept.exists():
        return Sparsity(_loaded(kept, job), "of an earlier start")
    if job.sparsity != "auto":
        found = _loaded(Path(job.sparsity), job)
        _require_shape(job, found)
        return Sparsity(_kept(job, found), f"of {job.sparsity}")
    started = time.perf_counter()
    rows, columns = _shape(job)
    most = max(10**6, int(_DENSE_SHARE * rows * columns))
    pattern = _detected(job, min(most, 2**31 - 1))
    if not isinstance(pattern, SparsityPattern):
        return Sparsity(None, f"the pattern was not detected: {pattern}", _since(started))
    detection = _since(started)
    share = pattern.entries / max(1, rows * columns)
    if share > _DENSE_SHARE:
        return Sparsity(None, f"{share:.0%} of the entries may differ from zero", detection)
    started = time.perf_counter()
    symmetric = job.operation == "hessian" and pattern.is_symmetric()
    colouring = colour(pattern, symmetric=symmetric)
    if 2 * colouring.colours > min(rows, columns):
        reason = f"{colouring.colours} products would be needed of {min(rows, columns)}"
        return Sparsity(None, reason, detection, _since(started))
    named = ""
    if pattern.conservative:
        named = f"; taken to depend on all they read: {', '.join(pattern.conservative)}"
    return Sparsity(_kept(job, colouring), f"detected{named}", detection, _since(started))


def _detected(job: Job, most: int) -> SparsityPattern | str:
    """The pattern, or why it cannot be detected."""
    torch.manual_seed(job.seed)
    with explaining_failures(job.function):
        try:
            return detect_sparsity(
                job.function.function,
                job.inputs,
                operation=job.operation,
                most_entries=most,
                most_seconds=DETECTION_SECONDS,
            )
        except DetectionError as error:
            return str(error)


def _since(started: float) -> float:
    return time.perf_counter() - started


def _shape(job: Job) -> tuple[int, int]:
    columns = sum(tensor.numel() for tensor in job.point.values())
    if job.operation == "hessian":
        return columns, columns
    with explaining_failures(job.function):
        return sum(leaf.numel() for leaf in leaves_of(_value(job))), columns


def _value(job: Job) -> Any:
    torch.manual_seed(job.seed)
    with torch.no_grad():
        return job.function.function(*job.point.values())


def _loaded(path: Path, job: Job) -> Colouring:
    """A colouring, or that of a pattern, of an .npz file."""
    try:
        return Colouring.load(path)
    except FileNotFoundError as error:
        raise ConfigurationError(f"sparsity={path}: there is no such file") from error
    except (PatternError, OSError, ValueError, KeyError):
        pass
    try:
        pattern = SparsityPattern.load(path)
    except (PatternError, OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"sparsity={path}: {error}; valid is an .npz file that SparsityPattern.save or "
            "Colouring.save wrote"
        ) from error
    return colour(pattern, symmetric=job.operation == "hessian" and pattern.is_symmetric())


def _require_shape(job: Job, colouring: Colouring) -> None:
    shape, given = _shape(job), colouring.pattern.shape
    if shape != given:
        raise ConfigurationError(
            f"sparsity={job.sparsity}: the pattern is of a matrix of {given[0]} x {given[1]}, and "
            f"this one has {shape[0]} x {shape[1]}"
        )
    if colouring.kind == "star" and job.operation != "hessian":
        raise ConfigurationError(
            f"sparsity={job.sparsity}: a star colouring is for Hessians; save the pattern alone, "
            "or colour it with kind='column'"
        )


def _kept(job: Job, colouring: Colouring) -> Colouring:
    """Keep a colouring for the workers, for later starts and for whoever wants to reuse it."""
    path = colouring_file(job)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    colouring.save(scratch)
    scratch.replace(path)
    return colouring


def colouring_file(job: Job) -> Path:
    """Where the colouring of a job is kept while it runs."""
    return job.paths.run / "colouring.npz"


def compressed_job(job: Job, colouring: Colouring, side: str) -> Job:
    """The job of the products from one side.

    Args:
        job: The job of the sparse matrix.
        colouring: Its colouring.
        side: ``right`` or ``left``.
    """
    is_hessian = job.operation == "hessian"
    right, left = ("hvp", "vhp") if is_hessian else ("jvp", "vjp")
    operation = right if side == "right" else left
    colours = colouring.column_colours if side == "right" else colouring.row_colours
    count = colouring.columns if side == "right" else colouring.rows
    assert colours is not None
    like: dict[str, Tensor] = job.point
    if operation == "vjp":
        like = {f"output{i}": leaf for i, leaf in enumerate(leaves_of(_value(job)))}
    stacked = seeds(colours, count, list(like.values()))
    strategy = job.strategy
    if operation in ("vjp", "vhp"):  # products from the left have no forward mode
        reverse = {"forward-mode": "vectorize", "forward-loop": "reverse-loop"}
        strategy = reverse.get(strategy, strategy)
    directory = job.paths.run / f"products-by-{_SIDES[side]}"
    digest = hashlib.sha256(f"{job.fingerprint} {side} {count}".encode())
    for part in (colouring.pattern.indptr, colouring.pattern.indices, colours):
        digest.update(np.ascontiguousarray(part).data)
    return replace(
        job,
        operation=operation,
        strategy=strategy,
        vectors=dict(zip(like, stacked, strict=True)),
        sparsity="none",
        compressed=side,
        tile=None,
        compression="none",
        nonfinite="record",
        fingerprint=digest.hexdigest(),
        paths=RunPaths(
            directory if job.shard is None else directory / job.paths.directory.name, directory
        ),
    )


def kept_compressed_job(job: Job, side: str) -> Job:
    """The same in a worker process, by the colouring that the job has kept."""
    return compressed_job(job, Colouring.load(colouring_file(job)), side)


def compressed_jobs(job: Job, colouring: Colouring) -> list[Job]:
    """The jobs of the products, those from the right first."""
    return [compressed_job(job, colouring, side) for side, _ in sides(colouring)]


def assemble(job: Job, sparsity: Sparsity, products: list[Path]) -> dict[str, Any]:
    """Read the entries out of the finished products, prove the matrix and write it.

    Args:
        job: The job.
        sparsity: What was found; it has a colouring.
        products: The results of the products, those from the right first.

    Returns:
        The facts for people.

    Raises:
        JobError: The matrix fails the proof, or an entry is not finite and the policy says so.
    """
    colouring = sparsity.colouring
    assert colouring is not None
    started = time.perf_counter()
    opened = [open_result(path) for path in products]
    try:
        arrays = [_mapped(result) for result in opened]
        records = [result.execution for result in opened]
        strategies = [result.strategy for result in opened]
    finally:
        for result in opened:
            result.close()
    pattern = colouring.pattern
    dtype = job.storage or job.dtype
    data = decompressed(colouring, arrays).astype(stored_dtype(dtype), copy=False)
    bad = np.flatnonzero(~np.isfinite(data))
    if bad.size and job.nonfinite == "fail":
        row = int(np.searchsorted(pattern.indptr, bad[0], side="right")) - 1
        raise JobError(
            f"{bad.size} entries are not finite, the first at row {row}, column "
            f"{pattern.indices[bad[0]]}; nonfinite=record writes them"
        )
    matrix = Matrix(pattern.indptr, pattern.indices, data, pattern.shape)
    value = _value(job)
    proof, probes = prove_sparse(job, value, matrix)
    seconds = sum(record.get("seconds", 0.0) for record in records)
    execution = {
        "sparsity": {
            "found": sparsity.reason,
            "entries": pattern.entries,
            "colouring": colouring.kind,
            "colours": colouring.colours,
            "conservative": list(pattern.conservative),
            "detection_seconds": sparsity.detection_seconds,
            "colouring_seconds": sparsity.colouring_seconds,
            "assembly_seconds": _since(started),
        },
        "seconds": seconds,
        "lines_computed": colouring.colours,
        "device": records[0].get("device") if records else "",
        "peak_memory_bytes": max((r.get("peak_memory_bytes", 0) for r in records), default=0),
        "chunk_sizes": [size for record in records for size in record.get("chunk_sizes", [])],
        "fallbacks": [text for record in records for text in record.get("fallbacks", [])],
        "nonfinite": {"count": int(bad.size)},
        "verification": proof,
        "products": records,
    }
    description = describe_sparse(job, value, ", ".join(dict.fromkeys(strategies)), dtype, probes)
    colours = {"column_colours": colouring.column_colours, "row_colours": colouring.row_colours}
    target = job.paths.result
    if target.exists():  # overwrite=true
        target = target.with_name("replacement.h5")
        target.unlink(missing_ok=True)
    write_sparse(
        target,
        description,
        pattern.indptr,
        pattern.indices,
        data.__getitem__,
        kind=colouring.kind,
        colours={name: array for name, array in colours.items() if array is not None},
        execution=execution,
    )
    target.replace(job.paths.result)
    for path in products:
        shutil.rmtree(path.parent, ignore_errors=True)
    colouring_file(job).unlink(missing_ok=True)
    share = pattern.entries / max(1, pattern.shape[0] * pattern.shape[1])
    return {
        "matrix": f"/{job.operation}, {pattern.shape[0]} rows x {pattern.shape[1]} columns, "
        f"{pattern.entries} entries ({share:.2g} of all)",
        "products": f"{colouring.colours}, {colouring.kind} colouring",
        "verified": _told(proof),
    }


def _mapped(result: Result) -> np.ndarray:
    """The products without reading those that are not needed, where they stand in one piece."""
    dataset = result.dataset()
    offset = dataset.id.get_offset()
    if dataset.chunks is not None or offset is None:
        return result[:]
    return np.memmap(result.path, dataset.dtype, "r", offset, dataset.shape)


def _told(proof: dict[str, Any]) -> str:
    if proof["kind"] == "none":
        return f"not at all: {proof['reason']}"
    return (
        f"{proof['lines_checked']} rows and columns agree with independent products, largest "
        f"relative error {proof['largest_relative_error']:.1e} (tolerance {proof['tolerance']:.1e})"
    )
