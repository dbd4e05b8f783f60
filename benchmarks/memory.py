"""Measure the memory that a job needs beyond torch's: a Jacobian of 2 GiB, block by block.

    python benchmarks/memory.py [--gigabytes 2] [--chunk-size 32]

A small job of the same kind runs first, so that memory that torch, HDF5 and the transformations
allocate once is not counted; then the large job runs in the same process. The benchmark prints the
resident memory before, its peak, and the growth, for blocks of rows and of columns.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from io import StringIO
from pathlib import Path

MEBIBYTE = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the matrix in GiB")
    parser.add_argument("--chunk-size", type=int, default=32)
    parser.add_argument("--strategy", help="run one strategy in this process (internal)")
    options = parser.parse_args()
    if options.strategy:
        measure(options.strategy, options.gigabytes, options.chunk_size)
        return
    for strategy in ("vectorize", "forward-mode"):
        # Separate processes: the peak of the first would hide that of the second.
        arguments = [f"--gigabytes={options.gigabytes}", f"--chunk-size={options.chunk_size}"]
        subprocess.run([sys.executable, __file__, f"--strategy={strategy}", *arguments], check=True)


def measure(strategy: str, gigabytes: float, chunk_size: int) -> None:
    """Run one job and print its memory and time."""
    directory = Path(tempfile.mkdtemp(prefix="autodiff-jobs-memory-"))
    try:
        run(strategy, 16, chunk_size, directory)
        # 2 n^2 variables give a square matrix in float64.
        n = math.ceil(math.sqrt(math.sqrt(gigabytes * 2**30 / 8) / 2))
        with PeakMemory() as memory:
            started = time.monotonic()
            path = run(strategy, n, chunk_size, directory)
            seconds = time.monotonic() - started
        print(
            f"{strategy:>12}: {path.stat().st_size / 2**30:.2f} GiB in {seconds:.1f} s, resident "
            f"{memory.before / MEBIBYTE:.0f} MiB before, {memory.peak / MEBIBYTE:.0f} MiB at the "
            f"peak, grown by {(memory.peak - memory.before) / MEBIBYTE:.0f} MiB"
        )
    finally:
        shutil.rmtree(directory)


def run(strategy: str, n: int, chunk_size: int, directory: Path) -> Path:
    """Run the job ``op=jacobian function=brusselator`` and return the path of the result."""
    from hydra import compose, initialize_config_dir
    from rich.console import Console

    from jobs.configuration.checks import check_config
    from jobs.configuration.registry import register
    from jobs.execution.execute import execute
    from jobs.job import resolve
    from jobs.reporting.terminal import Display
    from jobs.run import config_directory

    register()
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        composed = compose(
            "config",
            [
                "op=jacobian",
                f"strategy={strategy}",
                "function=brusselator",
                f"function.n={n}",
                f"chunk_size={chunk_size}",
                f"runs={directory}",
            ],
        )
    return execute(resolve(check_config(composed)), Display(Console(file=StringIO())))


class PeakMemory:
    """The resident memory of this process, sampled by a thread every few milliseconds."""

    def __enter__(self) -> PeakMemory:
        import psutil

        self._process = psutil.Process()
        self.before = self.peak = self._process.memory_info().rss
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.005):
            self.peak = max(self.peak, self._process.memory_info().rss)


if __name__ == "__main__":
    main()
