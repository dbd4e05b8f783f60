"""Measure how fast plain h5py and our writer write blocks of a few rows or columns.

    python benchmarks/blocks_to_file.py [--repeats 5]

A matrix of 128 MiB in float64 is written block by block. Plain h5py assigns slices of a contiguous
dataset, or of tiles of 2 MiB, and checks nothing. Our writer uses the layout that a job chooses for
such blocks, computes checksums and enters each block in the ledger. Both write to the page cache
only. Each variant is repeated, interleaved, and the medians are printed; a variant that takes
longer than a second is stopped and extrapolated.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from speed_writing import description

from outputs import ResultWriter

BYTES = 128 * 2**20
SECONDS = 1.0
CASES = [("rows", 8192, (1, 16, 64, 100)), ("columns", 16384, (1, 8, 16, 64, 100))]
TILES = {"rows": (16, 8192), "columns": (16384, 16)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print("MiB/s", *(f"{way:>12}" for way in ("contiguous", "tiles", "ours")), sep="\t")
    for axis, across, sizes in CASES:
        lines = BYTES // (8 * across)
        shape = (lines, across) if axis == "rows" else (across, lines)
        for size in sizes:
            rates: dict[str, list[float]] = {}
            for _ in range(options.repeats):
                for way, rate in ways(axis, shape, size):
                    rates.setdefault(way, []).append(rate)
            medians = [f"{statistics.median(found):12.0f}" for found in rates.values()]
            print(f"{size:>4} {axis}", *medians, sep="\t", flush=True)


def ways(axis: str, shape: tuple[int, int], size: int) -> Iterator[tuple[str, float]]:
    """Yield each variant and its MiB/s."""
    place = 0 if axis == "rows" else 1
    block = np.random.default_rng(0).random((size, shape[1]) if place == 0 else (size, shape[0]))
    # The computation also delivers columns as contiguous lines.
    values = block if axis == "rows" else block.T

    def rate(write: Callable[[int, int, np.ndarray], None]) -> float:
        started, done = time.perf_counter(), 0
        while done < shape[place] and (done == 0 or time.perf_counter() - started < SECONDS):
            stop = min(done + size, shape[place])
            part = slice(stop - done)
            write(done, stop, values[part] if axis == "rows" else values[:, part])
            done = stop
        seconds = time.perf_counter() - started
        return done / shape[place] * BYTES / 2**20 / seconds

    directory = Path(tempfile.mkdtemp(prefix="autodiff-jobs-blocks-"))
    try:
        for way, tile in (("contiguous", None), ("tiles", TILES[axis])):
            with h5py.File(directory / f"{way}.h5", "w") as file:
                matrix = file.create_dataset("m", shape, np.float64, chunks=tile)
                yield way, rate(partial(assign, matrix, axis))
        described = description(*shape, axis, dtype="float64", block_lines=size)
        with ResultWriter.create(directory / "r.h5", described) as writer:
            yield "ours", rate(writer.write)
    finally:
        shutil.rmtree(directory)


def assign(matrix: h5py.Dataset, axis: str, start: int, stop: int, values: np.ndarray) -> None:
    """Assign a block to a slice of a dataset."""
    if axis == "rows":
        matrix[start:stop] = values
    else:
        matrix[:, start:stop] = values


if __name__ == "__main__":
    main()
