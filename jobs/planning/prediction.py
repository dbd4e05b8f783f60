"""Make the plan that the user sees from what was measured."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from jobs.job import Job
from jobs.machine.accelerator import device_name
from jobs.machine.memory import Budget
from jobs.machine.process_memory import resident_memory
from jobs.planning.cost import BLOCKS_IN_FLIGHT
from jobs.planning.decision import Decision
from jobs.planning.plan import Plan
from outputs import ResultDescription, planned_tile

# A smaller result is written before a disk could slow the job down.
_WORTH_MEASURING = 256 * 2**20
_SAMPLE = 4 * 2**20
# Measured: a worker process imports torch and builds a small function.
_SECONDS_TO_START = 3.0
# A hundredth of a large result is written to measure the disk, but at most so many samples.
_LARGEST_SAMPLES = 128
# Measured: checksum, copy and the work of the kernel take so long of a core.
_SECONDS_A_BYTE = 1e-9


def make_plan(
    job: Job,
    decision: Decision,
    description: ResultDescription,
    budget: Budget,
    target: Path,
    missing: int,
) -> Plan:
    """Return the plan of a job.

    Args:
        job: The job.
        decision: How it is computed.
        description: What its file says.
        budget: The memory that it may use.
        target: The path of the file.
        missing: The number of rows or columns that are not on the disk yet.
    """
    rows, columns = description.stored_shape
    itemsize = np.dtype(description.dtype).itemsize
    directory = next(parent for parent in target.parents if parent.exists())
    line_bytes = description.axis.across((rows, columns)) * itemsize
    compute = _computing_seconds(job, decision, missing, line_bytes)
    waiting = (1 + BLOCKS_IN_FLIGHT) * decision.chunk_size * line_bytes
    on_host = job.device.type == "cpu"
    return Plan(
        operation=job.operation,
        function=job.function.reference,
        strategy=decision.strategy,
        strategy_reason=decision.strategy_reason,
        device=", ".join(map(device_name, dict.fromkeys(job.devices))),
        workers=len(job.devices),
        rows=rows,
        columns=columns,
        axis=description.axis,
        chunk_size=decision.chunk_size,
        chunk_reason=decision.chunk_reason,
        missing=missing,
        dtype=description.dtype,
        itemsize=itemsize,
        tile=planned_tile(description),
        bytes_free=shutil.disk_usage(directory).free,
        path=str(job.paths.result),
        waited=decision.waited,
        part=_part_of(description),
        structure=description.structure,
        points=description.points if job.shard is None else None,
        entries=description.entries if description.is_ragged else None,
        memory_budget=budget.bytes,
        memory_reason=budget.reason,
        peak_bytes=decision.peak_bytes,
        host_peak_bytes=decision.peak_bytes if on_host else resident_memory() + waiting,
        seconds=max(compute, _writing_seconds(directory, missing * line_bytes, compute)),
    )


def _computing_seconds(job: Job, decision: Decision, missing: int, line_bytes: int) -> float:
    """Return the seconds to compute the missing lines on all devices."""
    seconds = decision.seconds(missing) / len(job.devices)
    if job.device.type == "cpu":  # the writer takes processor time from the computation
        seconds += missing * line_bytes * _SECONDS_A_BYTE
    if len(job.devices) > 1 and missing:
        seconds += _SECONDS_TO_START
    return seconds


def _part_of(description: ResultDescription) -> str:
    """Return which part of a larger matrix a file holds, in words; empty for a whole one."""
    selected = "" if description.selection is None else str(description.selection)
    if description.shard is None:
        return selected
    held, (rows, columns) = description.held, description.shape
    return (
        f"shard {description.shard}, {description.axis} {held.start} to {held.stop} of a matrix of "
        f"{rows} x {columns}" + (f": {selected}" if selected else "")
    )


def _writing_seconds(directory: Path, size: int, compute: float) -> float:
    """Return the seconds to write a size; 0 where computing certainly hides them."""
    samples = min(_LARGEST_SAMPLES, max(1, size // (100 * _SAMPLE)))
    if size < _WORTH_MEASURING or shutil.disk_usage(directory).free < 2 * samples * _SAMPLE:
        return 0.0
    if size / max(compute, 1e-9) < 50e6:  # slower than any disk
        return 0.0
    content = np.random.default_rng(0).bytes(_SAMPLE)
    try:
        started = time.perf_counter()
        # It has no name: a kill leaves nothing.
        with tempfile.TemporaryFile(dir=directory) as file:
            for _ in range(samples):
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return size / (samples * _SAMPLE) * (time.perf_counter() - started)
    except OSError:  # the writer reports it better
        return 0.0
