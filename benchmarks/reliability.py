"""Measure what reliability costs: publishing a result, and resuming one, beside another checkout.

    python benchmarks/reliability.py PEER [--axis rows] [--gigabytes 1] [--rounds 5] [--directory D]

PEER is the directory of a checkout of another commit. Each of the two trees, by turns and in a
process of its own, writes a square matrix and completes it under its final name (`publish`), and
opens an equal file again after its writer has gone, which verifies what is there: from the disk
(`resume, cold`) and from memory (`resume, warm`). The benchmark prints the medians of the seconds,
of those of the processor, which other programs change less, and their ratios to those of the peer.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_BLOCK = 64
_FINGERPRINT = "0"
_STEPS = ("publish", "resume, cold", "resume, warm")
_Seconds = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time publishing and resuming beside a peer.")
    parser.add_argument("peer", type=Path, help="the checkout of another commit")
    parser.add_argument("--axis", default="rows", help="the axis of the blocks: rows or columns")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the matrix in GiB")
    parser.add_argument("--rounds", type=int, default=5, help="how often each tree is measured")
    parser.add_argument("--directory", help="where files are written; the disk that is measured")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(Path(options.directory), options.axis, options.gigabytes)))
        return
    own = Path(__file__).parents[1]
    found: dict[str, list[_Seconds]] = {"this tree": [], "peer": []}
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        for number in range(options.rounds):
            trees = (("this tree", own), ("peer", options.peer))
            for name, tree in trees if number % 2 else trees[::-1]:
                size = ["--axis", options.axis, "--gigabytes", str(options.gigabytes)]
                found[name].append(_of_tree(tree, Path(folder), size))
    for step in _STEPS:
        for place, kind in enumerate(("clock", "processor")):
            mine, other = (
                statistics.median(each[step][place] for each in rounds) for rounds in found.values()
            )
            print(f"{step:<13} {kind:<10} {mine:6.2f} s, peer {other:6.2f} s, {mine / other:.2f}")


def _of_tree(tree: Path, folder: Path, size: list[str]) -> _Seconds:
    """Measure one tree in a process that imports its packages."""
    # Not by its path: Python would find the packages beside this file first.
    code = (
        "import runpy, sys\n"
        f"sys.argv = {['', '.', '--measure', *size, '--directory', str(folder)]}\n"
        f"runpy.run_path({__file__!r}, run_name='__main__')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{tree}: {done.stderr}")
    return json.loads(done.stdout)


def measured(folder: Path, axis: str, gigabytes: float) -> _Seconds:
    """Return the seconds of each step, of the clock and of the processor.

    Args:
        folder: An existing directory.
        axis: The axis of the blocks.
        gigabytes: The size of the matrix in GiB.
    """
    from outputs import Axis, Probes, ResultDescription, ResultWriter, TensorSpec

    length = max(_BLOCK, round(math.sqrt(gigabytes * 2**30 / 8)) // _BLOCK * _BLOCK)
    random = np.random.default_rng(0)
    block, vector = random.standard_normal((_BLOCK, length)), random.standard_normal(length)
    right = np.tile(block @ vector, length // _BLOCK)
    left = vector.reshape(-1, _BLOCK).sum(0) @ block
    products = (right, left) if axis == Axis.ROWS else (left, right)
    block = block if axis == Axis.ROWS else np.ascontiguousarray(block.T)
    probes = Probes(vector, products[0], vector, products[1], 1e-10)
    spec = (TensorSpec("x", (length,), "float64"),)
    description = ResultDescription(
        *("jacobian", "vectorize", "benchmark", _FINGERPRINT, Axis(axis), spec, spec, "float64"),
        *(False, False, {}, {}, {}, "", {}),
        probes=probes,
    )
    again: dict[str, Any] = {}
    # Older commits compare nothing when they resume.
    if "reference" in inspect.signature(ResultWriter.resume).parameters:
        from outputs import Reference

        again = {"reference": Reference({}, probes, 1e-10)}

    def write() -> ResultWriter:
        writer = ResultWriter.create(path, description)
        for start in range(0, length, _BLOCK):
            writer.write(start, start + _BLOCK, block)
        return writer

    def resume() -> None:
        ResultWriter.resume(path, _FINGERPRINT, **again).close()

    path = folder / "result.h5"
    part = path.with_name("result.h5.part")
    found = {"publish": _timed(lambda: write().finish({}))}
    path.unlink()
    write().close()
    with part.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    found["resume, cold"] = _timed(resume)
    found["resume, warm"] = _timed(resume)
    part.unlink()
    return found


def _timed(action: Callable[[], object]) -> list[float]:
    before = time.perf_counter(), time.process_time()
    action()
    return [time.perf_counter() - before[0], time.process_time() - before[1]]


if __name__ == "__main__":
    main()
