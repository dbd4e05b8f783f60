"""Run a job: the only place where the core and the writer meet."""

from __future__ import annotations

import logging
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from autodiff_core import AxisLayout, Block, BlockStream
from jobs.batches import open_stream
from jobs.display import Display, duration, size
from jobs.errors import JobError
from jobs.failures import explaining_failures
from jobs.functions import SECOND_ORDER
from jobs.interruption import leaving_after_a_block
from jobs.job import PRODUCTS, Job, named_outputs
from jobs.nonfinite import NonFinite
from jobs.plan import Plan
from jobs.proof import Proof, prepare_proof
from jobs.provenance import device_name, provenance
from outputs import (
    BackgroundWriter,
    ResultDescription,
    ResultError,
    ResultWriter,
    TensorSpec,
    open_result,
    part_path,
)

_logger = logging.getLogger(__name__)


@dataclass
class Record:
    """What happened while a job ran; kept in the result.

    Attributes:
        nonfinite: The count of entries that are not finite.
        fallbacks: Slower ways that were taken, as sentences.
        lines: How many rows or columns this run computed.
        seconds: How long that took.
    """

    nonfinite: NonFinite
    fallbacks: list[str] = field(default_factory=list)
    lines: int = 0
    seconds: float = 0.0


def execute(
    job: Job, display: Display, *, overwrite: bool = False, plan_only: bool = False
) -> Path:
    """Compute what is missing of a result, prove it and give it its name.

    Args:
        job: The job.
        display: Where plan, progress and outcome are shown.
        overwrite: Whether a finished result is replaced.
        plan_only: Whether to stop after the plan.

    Returns:
        The path of the result.

    Raises:
        JobError: The job cannot start or go on. What is on the disk stays there.
    """
    final = job.paths.result
    if final.exists() and not overwrite:
        return _already_finished(job, display)
    # A replacement grows beside the finished result and takes its place in one step.
    target = final.with_name("replacement.h5") if final.exists() else final
    with explaining_failures(job.function):
        stream = open_stream(
            job.function.function,
            job.inputs,
            seed=job.seed,
            operation=job.operation,
            strategy=job.strategy,
            vectors=job.stacked_vectors,
            chunk_size=job.chunk_size,
        )
    is_new = not part_path(target).exists()
    try:
        description = describe(job, stream)
        if is_new or plan_only:
            plan = _plan(job, stream, description, target, [range(description.lines)])
            display.plan(plan)
            plan.check()
        if plan_only:
            return final
        record, proof = Record(NonFinite(job.nonfinite)), _proof(job, stream)
        description = replace(description, probes=proof.probes())
        with _writer(target, description, job.fsync) as writer:
            if not is_new:
                display.plan(_plan(job, stream, description, target, writer.missing()))
            _compute(job, stream, writer, record, proof, display)
            writer.finish(_execution(job, stream, record, proof))
        target.replace(final)
    except ResultError as error:
        raise JobError(str(error)) from error
    display.outcome(_facts(job, description, record, proof), str(final))
    return final


def _already_finished(job: Job, display: Display) -> Path:
    try:
        with open_result(job.paths.result) as result:
            if result.fingerprint != job.fingerprint:
                raise JobError(
                    f"{job.paths.result} is the result of another job; choose another place with "
                    "runs=..."
                )
            shape = " x ".join(map(str, result.shape))
    except ResultError as error:
        raise JobError(str(error)) from error
    display.already_finished(shape, str(job.paths.result))
    return job.paths.result


@contextmanager
def _writer(
    target: Path, description: ResultDescription, fsync: Literal["block", "end"]
) -> Iterator[ResultWriter]:
    """A writer that goes on where an earlier one stopped.

    A new file that ends without a single block is removed again: it holds nothing to keep, and
    reserves space on the disk.
    """
    part = part_path(target)
    is_new = not part.exists()
    if is_new:
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = ResultWriter.create(target, description, fsync=fsync)
    else:
        writer = ResultWriter.resume(target, description.fingerprint, fsync=fsync)
    is_empty = False
    try:
        with writer:
            try:
                yield writer
            except BaseException:
                is_empty = sum(map(len, writer.missing())) == description.lines
                raise
    except BaseException:
        if is_new and is_empty:
            part.unlink(missing_ok=True)
        raise


def _proof(job: Job, stream: BlockStream) -> Proof:
    with explaining_failures(job.function):
        return prepare_proof(job, stream)


def _compute(
    job: Job,
    stream: BlockStream,
    writer: ResultWriter,
    record: Record,
    proof: Proof,
    display: Display,
) -> None:
    stored = stored_dtype(job.storage or stream.dtype)
    missing = writer.missing()
    started = time.monotonic()
    with (
        BackgroundWriter(writer) as background,
        display.progress(sum(map(len, missing)), stream.axis) as advance,
        leaving_after_a_block() as leave_if_asked,
    ):
        for block in _blocks(job, stream, missing):
            for fallback in block.fallbacks:
                record.fallbacks.append(str(fallback))
                display.say(f"note: {fallback}")
            proven = _proven(job, stream, block, proof)
            record.nonfinite.inspect(proven)
            values = to_numpy(proven.values).astype(stored, copy=False)
            background.submit(block.start, block.stop, values)
            record.lines += block.stop - block.start
            advance(block.stop - block.start)
            leave_if_asked()
    record.seconds = time.monotonic() - started


def _blocks(job: Job, stream: BlockStream, missing: list[range]) -> Iterator[Block]:
    # Around the computation alone: a full disk is no failure of the function.
    with explaining_failures(job.function):
        yield from stream.blocks(missing)


def _proven(job: Job, stream: BlockStream, block: Block, proof: Proof) -> Block:
    """The block, computed once more if it fails the proof.

    Raises:
        JobError: It fails twice.
    """
    error = proof.error(block)
    if error > proof.tolerance:
        _logger.warning("%s %s to %s failed the proof", block.axis, block.start, block.stop)
        with explaining_failures(job.function):
            block = stream.block(block.start, block.stop)
        error = proof.error(block)
    if error > proof.tolerance:
        raise JobError(
            f"{block.axis} {block.start} to {block.stop} disagree with an independent product by "
            f"{error:.1e} (tolerance {proof.tolerance:.1e}), twice; what was computed before is "
            "kept. Try another strategy, or a wider dtype if the function is ill-conditioned"
        )
    proof.record(block, error)
    return block


def to_numpy(values: Tensor) -> np.ndarray:
    """A block as numpy stores it: on the host, bfloat16 widened to float32."""
    if values.dtype == torch.bfloat16:
        values = values.float()
    return values.detach().resolve_conj().resolve_neg().cpu().numpy()


def describe(job: Job, stream: BlockStream) -> ResultDescription:
    """Everything that the result file says before its first block."""
    value = stream.value
    outputs = named_outputs(job.function, value)
    names = tuple(outputs)
    is_second_order = job.operation in SECOND_ORDER
    inputs_are_tuple = len(job.point) > 1
    outputs_are_tuple = not isinstance(value, Tensor)
    if job.operation in PRODUCTS:
        rows = (TensorSpec("vectors", (stream.rows.size,), "int64"),)
        column_names = names if job.operation == "jvp" else tuple(job.point)
        rows_are_tuple = False
        columns_are_tuple = outputs_are_tuple if job.operation == "jvp" else inputs_are_tuple
    else:
        rows = _specs(tuple(job.point) if is_second_order else names, stream.rows)
        column_names = tuple(job.point)
        rows_are_tuple = inputs_are_tuple if is_second_order else outputs_are_tuple
        columns_are_tuple = inputs_are_tuple
    return ResultDescription(
        operation=job.operation,
        strategy=job.strategy,
        function=job.function.reference,
        fingerprint=job.fingerprint,
        axis=stream.axis,
        rows=rows,
        columns=_specs(column_names, stream.columns),
        dtype=str(stored_dtype(job.storage or stream.dtype)),
        rows_are_tuple=rows_are_tuple,
        columns_are_tuple=columns_are_tuple,
        point=_arrays(job.point),
        value=_arrays(outputs),
        vectors=_arrays(job.vectors),
        configuration=job.configuration,
        provenance=provenance(job),
        tile=job.tile,
        compression="gzip" if job.compression == "gzip" else "none",
    )


def stored_dtype(dtype: torch.dtype) -> np.dtype:
    """The numpy dtype that holds a torch dtype without loss."""
    return to_numpy(torch.empty(0, dtype=dtype)).dtype


def _specs(names: tuple[str, ...], layout: AxisLayout) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, shape, str(dtype).removeprefix("torch."))
        for name, shape, dtype in zip(names, layout.shapes, layout.dtypes, strict=True)
    )


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: to_numpy(tensor) for name, tensor in tensors.items()}


def _plan(
    job: Job,
    stream: BlockStream,
    description: ResultDescription,
    target: Path,
    missing: list[range],
) -> Plan:
    existing = next(parent for parent in target.parents if parent.exists())
    return Plan(
        operation=job.operation,
        strategy=job.strategy,
        function=job.function.reference,
        device=device_name(job.device),
        rows=stream.shape[0],
        columns=stream.shape[1],
        axis=stream.axis,
        chunk_size=stream.chunk_size,
        missing=sum(map(len, missing)),
        dtype=description.dtype,
        itemsize=np.dtype(description.dtype).itemsize,
        bytes_free=shutil.disk_usage(existing).free,
        path=str(job.paths.result),
    )


def _execution(job: Job, stream: BlockStream, record: Record, proof: Proof) -> dict[str, Any]:
    lines = stream.shape[0 if stream.axis == "rows" else 1]
    return {
        "chunk_size": stream.chunk_size,
        "device": device_name(job.device),
        "lines_computed": record.lines,
        "lines_resumed": lines - record.lines,
        "seconds": record.seconds,
        "peak_memory_bytes": peak_memory(job.device),
        "fallbacks": record.fallbacks,
        "nonfinite": record.nonfinite.figures(),
        "verification": proof.figures(),
    }


def peak_memory(device: torch.device) -> int:
    """The most memory that was in use so far: of the device, or of this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _facts(
    job: Job, description: ResultDescription, record: Record, proof: Proof
) -> dict[str, str]:
    rows, columns = description.shape
    written = record.lines * (columns if description.axis == "rows" else rows)
    rate = written * np.dtype(description.dtype).itemsize / max(record.seconds, 1e-9)
    facts = {
        "matrix": f"/{description.operation}, {rows} rows x {columns} columns, {description.dtype}",
        "time": f"{duration(record.seconds)}, {size(round(rate))}/s",
        "memory": f"{size(peak_memory(job.device))} at most",
        "verified": str(proof),
    }
    if record.nonfinite.count:
        row, column = record.nonfinite.first[0]
        facts["not finite"] = (
            f"{record.nonfinite.count} entries, first at row {row}, column {column}"
        )
    return facts
