"""Measure whether writing overlaps with computing: a job compared with its two halves.

    python benchmarks/overlap.py [--repeats 3]

The benchmark times, interleaved, computing all blocks without keeping them, writing the same number
of ready blocks, and the job that does both; the last two end when all data are on the disk. It
prints the medians and the ratio of the job to the longer half: for halves of equal length, 1 is
perfect overlap and 2 is none.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from speed_writing import bring_to_disk, description

from autodiff_core import BlockStream, blocks
from outputs import BackgroundWriter, ResultWriter

CHUNK_SIZE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    options = parser.parse_args()
    # One thread computes, so the writer's thread has a core to itself.
    torch.set_num_threads(1)
    stream = mlp_stream(options.gigabytes)
    ready = stream.block(0, CHUNK_SIZE).values.numpy()
    directory = Path(tempfile.mkdtemp(prefix="autodiff-jobs-overlap-"))
    halves: dict[str, Callable[[], None]] = {
        "compute": lambda: compute(stream),
        "write": lambda: write(directory, stream, ready),
        "both": lambda: both(directory, stream),
    }
    try:
        times: dict[str, list[float]] = {name: [] for name in halves}
        for _ in range(options.repeats):
            for name, half in halves.items():
                os.sync()
                started = time.perf_counter()
                half()
                times[name].append(time.perf_counter() - started)
                for file in directory.iterdir():
                    file.unlink()
    finally:
        shutil.rmtree(directory)
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    ratio = medians["both"] / max(medians["compute"], medians["write"])
    size = stream.shape[0] * stream.shape[1] * stream.dtype.itemsize / 2**30
    print(f"matrix {stream.shape[0]} x {stream.shape[1]}, {size:.2f} GiB, medians of", end=" ")
    print(f"{options.repeats}: " + ", ".join(f"{k} {v:.2f} s" for k, v in medians.items()))
    print(f"the job takes {ratio:.2f} times the longer half")


def mlp_stream(gigabytes: float) -> BlockStream:
    """Return a stream of the rows of a perceptron's input Jacobian."""
    n = int((gigabytes * 2**30 / 4) ** 0.5)
    generator = torch.Generator().manual_seed(0)
    inner = max(16, n // 64)
    first = torch.randn(inner, n, generator=generator) / n**0.5
    second = torch.randn(n, inner, generator=generator) / inner**0.5
    point = torch.randn(n, generator=generator)
    return blocks(
        lambda x: torch.tanh(second @ torch.tanh(first @ x)),
        point,
        operation="jacobian",
        strategy="vectorize",
        chunk_size=CHUNK_SIZE,
    )


def compute(stream: BlockStream) -> None:
    """Compute all blocks without keeping them."""
    for _ in stream:
        pass


def write(directory: Path, stream: BlockStream, ready: np.ndarray) -> None:
    """Write the same block everywhere."""
    with writer(directory, stream) as result, BackgroundWriter(result) as background:
        for start in range(0, stream.shape[0], CHUNK_SIZE):
            stop = min(start + CHUNK_SIZE, stream.shape[0])
            background.submit(start, stop, ready[: stop - start])
    bring_to_disk(directory)


def both(directory: Path, stream: BlockStream) -> None:
    """Compute and write, as a job does."""
    with writer(directory, stream) as result, BackgroundWriter(result) as background:
        for block in stream:
            background.submit(block.start, block.stop, block.values.numpy())
    bring_to_disk(directory)


def writer(directory: Path, stream: BlockStream) -> ResultWriter:
    """Create a result file for the stream."""
    return ResultWriter.create(directory / "result.h5", description(*stream.shape, "rows"))


if __name__ == "__main__":
    main()
