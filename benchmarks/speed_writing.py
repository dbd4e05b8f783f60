"""Write the matrix to a file in the speed benchmark: by plain h5py, and by the writer of a job."""

from __future__ import annotations

import math
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import clocks
import h5py
import numpy as np
import torch
from contenders import DEFAULT, SWEPT, Contender, Lines
from timing import Keep, clock_for, timed
from torch import Tensor
from workloads import Instance

from jobs.machine.device_copies import copies_to_host
from outputs import Axis, BackgroundWriter, ResultDescription, ResultWriter, TensorSpec

STORED = np.dtype("float32")

BYTES_OF_BLOCKS = 2**28
"""The size of ready blocks that exceeds every cache."""

MEMORY = bytes(2**24)
"""A piece that is written to fault in memory for the page cache."""

Computed = tuple[int, int, Tensor]
"""The start and the stop of a range of lines, and the lines."""


def timed_writing(lines: Lines, contender: Contender, instance: Instance, seconds: float) -> float:
    """Return the time with the matrix written to a file, until the last byte is on the disk."""
    settle_disk(instance)
    directory = Path(tempfile.mkdtemp(prefix="autodiff-jobs-speed-"))
    try:
        if contender.group in (DEFAULT, SWEPT):
            return ours_written(lines, contender, instance, seconds, directory)
        with plain_file(directory, contender, instance) as (keep, file):
            end = partial(bring_to_disk, directory, file)
            return timed(lines, contender, instance, seconds, keep, end)
    finally:
        shutil.rmtree(directory)


def settle_disk(instance: Instance) -> None:
    """Give every contender the same start: an idle disk, and memory ready for the file.

    Otherwise a contender would wait for the writes of an earlier one. And if a virtual machine gets
    its memory when it first touches it, a file in new memory takes ten times as long to write as
    one that reuses memory (measured: 9 MB in 18 ms and in 2).
    """
    size = instance.rows * instance.columns * STORED.itemsize
    with tempfile.TemporaryFile(prefix="autodiff-jobs-speed-") as file:
        for _ in range(math.ceil(size / len(MEMORY))):
            file.write(MEMORY)
    if hasattr(os, "sync"):
        os.sync()


def bring_to_disk(directory: Path, file: h5py.File | None = None) -> None:
    """Wait until the files of a directory are on the disk.

    Args:
        directory: The directory.
        file: One of the files, if it is still open.
    """
    if file is not None:
        file.flush()
    for path in directory.iterdir():
        with path.open("rb") as each:
            os.fsync(each.fileno())


@contextmanager
def plain_file(
    directory: Path, contender: Contender, instance: Instance
) -> Iterator[tuple[Keep, h5py.File]]:
    """Create a file with h5py's defaults; yield a function that writes lines, and the file."""
    with h5py.File(directory / "plain.h5", "w") as file:
        matrix = file.create_dataset("matrix", (instance.rows, instance.columns), "f4")

        def keep(start: int, stop: int, values: Any) -> None:
            on_host = values.cpu() if isinstance(values, Tensor) else values
            array = np.asarray(on_host)[: stop - start]
            if contender.axis == "rows":
                matrix[start:stop] = array
            else:
                matrix[:, start:stop] = array.T

        yield keep, file


def writing_alone(contender: Contender, instance: Instance, repeats: int) -> float:
    """Return the median time for the writer of a job to write ready blocks to the disk.

    The blocks come from memory, as those of a matrix do, and are not one block in the caches.
    """
    lines = contender.prepare()
    first = as_block(lines(0, contender.chunk_size), contender).detach().cpu().numpy()
    blocks = math.ceil(contender.lines / contender.chunk_size)
    ready = [first.copy("K") for _ in range(min(blocks, BYTES_OF_BLOCKS // first.nbytes + 1))]
    described = description(
        instance.rows, instance.columns, contender.axis, block_lines=contender.chunk_size
    )
    times = []
    for _ in range(repeats):
        settle_disk(instance)
        directory = Path(tempfile.mkdtemp(prefix="autodiff-jobs-speed-"))
        try:
            with ResultWriter.create(directory / "result.h5", described) as result:
                started = clocks.now()
                with BackgroundWriter(result) as background:
                    for start in range(0, contender.lines, contender.chunk_size):
                        stop = min(start + contender.chunk_size, contender.lines)
                        part = slice(stop - start)
                        block = ready[start // contender.chunk_size % len(ready)]
                        values = block[part] if contender.axis == "rows" else block[:, part]
                        background.submit(start, stop, values)
                bring_to_disk(directory)
                times.append(clocks.now() - started)
        finally:
            shutil.rmtree(directory)
    return statistics.median(times)


def ours_written(
    lines: Lines, contender: Contender, instance: Instance, seconds: float, directory: Path
) -> float:
    """Time ours with the writer of a job: laid out before, written in the background."""
    size = contender.chunk_size
    clock = clock_for(contender.group, instance.device)

    def computed() -> Iterator[Computed]:
        done = 0
        while done < contender.lines and (done == 0 or clock.is_within(seconds)):
            stop = min(done + size, contender.lines)
            yield done, stop, lines(done, stop)
            done = stop

    lines(0, size)
    done = 0
    described = description(instance.rows, instance.columns, contender.axis, block_lines=size)
    shares_cores = instance.device.type == "cpu"
    with ResultWriter.create(directory / "result.h5", described) as result:
        clock.start()
        with BackgroundWriter(result, shares_cores=shares_cores) as background:
            for start, stop, array in finished(computed(), contender, instance.device):
                background.submit(start, stop, array)
                done = stop
        bring_to_disk(directory)
        return clock.seconds() * contender.lines / done


def finished(
    computed: Iterable[Computed], contender: Contender, device: torch.device
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield blocks on the host; from a CUDA device, each is copied while the next is computed.

    `jobs.execution.local_source.LocalSource` does the same.
    """
    copy = copies_to_host(device)
    under_way: tuple[int, int, Callable[[], np.ndarray]] | None = None
    for start, stop, values in computed:
        if under_way is not None:
            first, last, arrived = under_way
            yield first, last, arrived()
        block = as_block(values, contender)
        if copy is None:
            yield start, stop, block.detach().numpy()
        else:
            under_way = start, stop, copy(block, STORED)
    if under_way is not None:
        first, last, arrived = under_way
        yield first, last, arrived()


def as_block(lines: Tensor, contender: Contender) -> Tensor:
    """Return lines in the orientation of the matrix."""
    return lines if contender.axis == "rows" else lines.T


def description(
    rows: int, columns: int, axis: str, *, dtype: str = "float32", block_lines: int | None = None
) -> ResultDescription:
    """Return the description of a result file; only its shape matters here."""
    return ResultDescription(
        operation="jacobian",
        strategy="vectorize" if axis == "rows" else "forward-mode",
        function="benchmark",
        fingerprint="0",
        axis=Axis(axis),
        rows=(TensorSpec("y", (rows,), dtype),),
        columns=(TensorSpec("x", (columns,), dtype),),
        dtype=dtype,
        rows_are_tuple=False,
        columns_are_tuple=False,
        point={},
        value={},
        vectors={},
        configuration="",
        provenance={},
        block_lines=block_lines,
    )
