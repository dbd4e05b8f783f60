"""Measure how much faster two worker processes are than one: one thread each, interleaved, medians.

    python benchmarks/workers.py

The benchmark compares the times from the first task to the last written block. It also prints the
times of the whole commands, which include starting the processes, some seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from outputs import open_result

WORKLOADS = {
    "MLP input Jacobian": (
        *("op=jacobian", "strategy=vectorize", "function=mlp", "function.n=4608"),
        *("dtype=float32", "chunk_size=64"),
    ),
    "pairwise energy Hessian": (
        *("op=hessian", "strategy=forward-mode", "function=pairwise_energy", "function.n=2400"),
        "chunk_size=12",
    ),
    "Gaussian process Jacobian": (
        *("op=jacobian", "strategy=forward-mode", "function=gp_residual", "function.n=3000"),
        *("function.inducing=500", "chunk_size=16"),
    ),
    "transformer Jacobian": (
        *("op=jacobian", "strategy=vectorize", "function=transformer_block", "function.n=48"),
        *("function.width=192", "dtype=float32", "chunk_size=32"),
    ),
}


def measure(options: tuple[str, ...], devices: str, directory: str) -> tuple[float, float]:
    """Return the seconds of computing and writing, and those of the whole command."""
    command = [sys.executable, "-m", "jobs.run", *options, f"devices={devices}"]
    command += [f"runs={directory}", "overwrite=true", "progress=quiet"]
    started = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    whole = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    with open_result(Path(done.stdout.splitlines()[-1])) as result:
        record = result.execution
    # One process starts at once; several start when the first has built the function.
    return record["seconds"] - record["seconds_to_start"], whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    many = f"cpu:{options.workers}"
    table = Table("workload", "one", f"{options.workers} workers", "ratio", "whole commands")
    figures = {}
    for name, workload in WORKLOADS.items():
        found: dict[str, list[tuple[float, float]]] = {"cpu": [], many: []}
        with tempfile.TemporaryDirectory(dir=".") as directory:
            for _ in range(options.repeat):
                for devices in found:
                    found[devices].append(measure(workload, devices, directory))
        (one, one_whole), (several, several_whole) = (
            [statistics.median(column) for column in zip(*found[devices], strict=True)]
            for devices in found
        )
        table.add_row(
            name,
            f"{one:.1f} s",
            f"{several:.1f} s",
            f"{one / several:.2f}",
            f"{one_whole:.1f} s, {several_whole:.1f} s",
        )
        figures[name] = {"one": one, "several": several, "ratio": one / several}
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
