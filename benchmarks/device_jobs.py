"""Whole jobs on one device: peak memory beside the plan, two jobs at once, CUDA graphs on and off.

    python benchmarks/device_jobs.py [--device cuda:0] [--small] [--json FILE]

The figures of a machine with a GPU, in `benchmarks/on_device.sh`; on a CPU it runs as well, without
the graphs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from timing import clock_for

from autodiff_core import blocks
from autodiff_core._engines import compiled
from jobs.errors import ConfigurationError
from jobs.machine.devices import choose_devices
from jobs.problems import load_builder
from outputs import open_result, verify_result

JOBS = {
    "mlp": ("op=jacobian", "function=mlp", "dtype=float32"),
    "transformer_block": ("op=jacobian", "function=transformer_block", "dtype=float32"),
    "pairwise_energy": ("op=hessian", "function=pairwise_energy", "dtype=float64"),
    "gp_residual": ("op=jacobian", "function=gp_residual", "dtype=float64"),
}
SIZES = {"mlp": 1024, "transformer_block": 32, "pairwise_energy": 1024, "gp_residual": 2000}
SMALL = {"mlp": 16}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda:0", help="as in the option devices")
    parser.add_argument("--small", action="store_true", help="sizes for a trial on a CPU")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    try:
        (device,) = choose_devices(options.device, "float64")
    except ConfigurationError as error:
        parser.error(f"--device: {error}")
    sizes = SMALL if options.small else SIZES
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="autodiff-jobs-device-") as name:
        place = Path(name)
        parts = {job: partial(memory, place, job, size, device) for job, size in sizes.items()}
        parts["two_jobs"] = partial(two_jobs, place, sizes["mlp"], device)
        if device.type == "cuda":
            parts["graphs"] = partial(graphs, sizes["mlp"] // 8, device)
        for part, figures in parts.items():
            try:
                report[part] = figures()
            # One figure that fails does not take the others with it.
            except Exception as error:
                traceback.print_exc()
                report[part] = {"error": f"{type(error).__name__}: {error}"}
            print(part, json.dumps(report[part], indent=2), flush=True)
            if options.json:  # after each: a run that is stopped leaves what it has
                options.json.write_text(json.dumps(report, indent=2))
    sys.exit(any("error" in figures for figures in report.values()))


def started(place: Path, runs: str, name: str, size: int, device: torch.device) -> Any:
    """Start a job in a process of its own."""
    words = (*JOBS[name], f"function.n={size}", f"devices={device}", "progress=quiet")
    command = [sys.executable, "-m", "jobs.run", *words, f"runs={place / runs}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(job: subprocess.Popen[str]) -> Path:
    """Wait for a job and return its result."""
    out, _ = job.communicate()
    if job.returncode:
        raise RuntimeError(f"a job ended with {job.returncode}: {job.args}")
    return Path(out.strip().splitlines()[-1])


def memory(place: Path, name: str, size: int, device: torch.device) -> dict[str, Any]:
    """Run a job; return its peak memory beside the plan's and whether its file is verified."""
    begun = time.perf_counter()
    path = finished(started(place, name, name, size, device))
    whole = time.perf_counter() - begun
    with open_result(path) as result:
        record = result.execution
    return {
        "device": record["device"],
        "peak_bytes": record["peak_memory_bytes"],
        "predicted_bytes": record["plan"]["predicted_peak_bytes"],
        "peak_of_predicted": record["peak_memory_bytes"] / record["plan"]["predicted_peak_bytes"],
        "seconds": record["seconds"],
        "seconds_of_the_process": whole,
        "engine": record["engine"],
        "fallbacks": record["fallbacks"],
        "verified": verify_result(path).ok,
    }


def two_jobs(place: Path, size: int, device: torch.device) -> dict[str, Any]:
    """Run two jobs at once on one device, as `memory` runs one; return their seconds."""
    begun = time.perf_counter()
    jobs = [started(place, each, "mlp", size, device) for each in ("first", "second")]
    paths = [finished(job) for job in jobs]
    seconds = time.perf_counter() - begun
    assert all(verify_result(path).ok for path in paths)
    return {"seconds_of_the_processes": seconds}


def graphs(size: int, device: torch.device) -> dict[str, float]:
    """Return the seconds of small chunks by compiled programs, as CUDA graphs and without."""
    found = {}
    problem = load_builder("mlp")(n=size, seed=0, dtype=torch.float32, device=device)
    runnable = compiled._runnable
    for name, as_graph in (("with", True), ("without", False)):
        replaced = mock.patch.object(
            *(compiled, "_runnable"),
            lambda traced, as_graph, on=as_graph: runnable(traced, as_graph=on),
        )
        with replaced:
            stream = blocks(
                *(problem.function, tuple(problem.point.values())),
                operation="jacobian",
                strategy="vectorize",
                engine="compiled",
                chunk_size=8,
            )
            stream.block(0, 8)
            assert stream.engine == "compiled", stream.engine_refusal
            clock = clock_for("torch", device)
            for start in range(0, size - 8, 8):
                stream.block(start, start + 8)
            found[f"seconds_{name}_graphs"] = clock.seconds()
    return found


if __name__ == "__main__":
    main()
