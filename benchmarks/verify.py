"""Measure how fast a result is verified, compared with reading the same bytes.

    python benchmarks/verify.py [--gigabytes 2] [--axis rows] [--compression none] [--directory D]

A result is written into a temporary directory. Its bytes are read sequentially, and then it is
verified (structure, ledger, checksums, probe products, entries that are not finite), each from a
cold and from a warm page cache. The benchmark prints the speeds and their ratio.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from outputs import Axis, Probes, ResultDescription, ResultWriter, TensorSpec, verify_result

_BLOCK = 64
_READ_BYTES = 8 * 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description="Time outputs.verify_result.")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the matrix in GiB")
    parser.add_argument("--axis", choices=("rows", "columns"), default="rows")
    parser.add_argument("--compression", choices=("none", "gzip"), default="none")
    parser.add_argument("--directory", help="where the file is written; the disk that is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        path = Path(folder) / "result.h5"
        write(path, options.gigabytes, options.axis, options.compression)
        size = path.stat().st_size
        print(f"{path}: {size / 2**30:.2f} GiB, blocks of {options.axis}, {options.compression}")
        for cache in ("cold", "warm"):
            reading = timed(lambda: read(path), path, cold=cache == "cold")
            checking = timed(lambda: check(path), path, cold=cache == "cold")
            print(
                f"{cache} cache: read {size / 2**20 / reading:.0f} MiB/s, verified "
                f"{size / 2**20 / checking:.0f} MiB/s, ratio {reading / checking:.2f}"
            )


def write(path: Path, gigabytes: float, axis: str, compression: str) -> None:
    """Write a square float64 matrix with probes; every block has the same entries."""
    length = max(_BLOCK, round(math.sqrt(gigabytes * 2**30 / 8)) // _BLOCK * _BLOCK)
    random = np.random.default_rng(0)
    block, vector = random.standard_normal((_BLOCK, length)), random.standard_normal(length)
    across = np.tile(block @ vector, length // _BLOCK)
    along = vector.reshape(-1, _BLOCK).sum(0) @ block
    right, left = (across, along) if axis == "rows" else (along, across)
    spec = (TensorSpec("x", (length,), "float64"),)
    description = ResultDescription(
        "jacobian",
        "vectorize",
        "benchmark",
        "0",
        Axis(axis),
        spec,
        spec,
        "float64",
        False,
        False,
        {},
        {},
        {},
        "",
        {},
        compression="gzip" if compression == "gzip" else "none",
        probes=Probes(vector, right, vector, left, 1e-10),
    )
    values = block if axis == "rows" else np.ascontiguousarray(block.T)
    with ResultWriter.create(path, description) as writer:
        for start in range(0, length, _BLOCK):
            writer.write(start, start + _BLOCK, values)
        writer.finish({})


def read(path: Path) -> None:
    buffer = bytearray(_READ_BYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def check(path: Path) -> None:
    found = verify_result(path)
    if not found.ok:
        raise SystemExit(f"the result is not valid: {found.problems}")


def timed(action: Callable[[], None], path: Path, *, cold: bool) -> float:
    if cold:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
