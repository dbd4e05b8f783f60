"""Measure how accurate the plan of a job is, and how good its choice.

For each problem and operation a default job runs in a separate process; its record has the
predicted and the actual figures. Then this process times chunks of every strategy and of many
sizes, interleaved with the choice of the job: the ratio of the choice to the best is what an
exhaustive search would have gained.

    python benchmarks/planner.py [--seconds 1.0] [--only mlp ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from whole_jobs import job_of

from jobs.errors import JobError
from jobs.job import Job
from jobs.machine.warm_up import warm_up
from jobs.strategies import LOOPS
from jobs.streams.opening import open_job_stream
from jobs.streams.stream import Stream, to_numpy
from outputs import open_result

CASES = {
    ("jacobian", "mlp"): ["function.n=1024"],
    ("jacobian", "mlp_parameters"): ["function.n=40", "function.samples=256"],
    ("hessian", "mlp_parameters"): ["function.n=20"],
    ("hessian", "rosenbrock"): ["function.n=2000"],
    ("jacobian", "pairwise_energy"): ["function.n=400"],
    ("hessian", "pairwise_energy"): ["function.n=200"],
    ("jacobian", "gp_residual"): ["function.n=2000", "function.inducing=200"],
    ("hessian", "gp_residual"): ["function.n=500", "function.inducing=50"],
    ("jacobian", "brusselator"): ["function.n=32"],
    ("jacobian", "transformer_block"): ["function.n=24", "function.width=64"],
    ("jacobian", "rotation_chain"): ["function.n=3005"],
    ("hvp", "mlp_parameters"): ["function.n=40", "vectors.count=200"],
    ("vjp", "mlp"): ["function.n=512", "vectors.count=200"],
    ("jvp", "mlp"): ["function.n=512", "vectors.count=200"],
    ("vhp", "rosenbrock"): ["function.n=2000", "vectors.count=200"],
}
ROUNDS = 5
SIZES = (1, 4, 16, 64, 256, 10**9)
FORWARD = ("forward-mode", "forward-loop")
REVERSE = ("vectorize", "reverse-loop")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="a chunk at most, about")
    parser.add_argument("--only", nargs="*", default=[], help="problems")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = []
    print(f"{'case':28} {'chosen':>22} {'peak':>6} {'time':>6} {'best by hand':>22} {'ratio':>6}")
    for (operation, problem), options in CASES.items():
        if given.only and problem not in given.only:
            continue
        found.append(case([f"op={operation}", f"function={problem}", *options], given.seconds))
        one = found[-1]
        print(
            f"{operation + ' ' + problem:28} {one['chosen']:>22} {one['memory_ratio']:6.2f} "
            f"{one['time_ratio']:6.2f} {one['best']:>22} {one['choice_ratio']:6.2f}",
            flush=True,
        )
    ratios = [one["choice_ratio"] for one in found]
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"choice against the best by hand: geometric mean {mean:.2f}, worst {max(ratios):.2f}")
    print("peak: used / predicted bytes; time: used / predicted seconds of the run")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


def case(options: list[str], seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "jobs.run", *options, f"runs={place}/runs"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=place)
        with open_result(done.stdout.splitlines()[-1]) as result:
            record, strategy, lines = result.execution, result.strategy, result.shape
    plan = record["plan"]
    chosen = (strategy, record["chunk_size"])
    times = sweep(job_of(options), chosen, seconds)
    best = min(times, key=lambda key: times[key])
    return {
        "options": options,
        "shape": lines,
        "chosen": f"{chosen[0]} {chosen[1]}",
        "memory_ratio": record["peak_memory_bytes"] / plan["predicted_peak_bytes"],
        "time_ratio": record["seconds"] / plan["predicted_seconds"],
        "probing_seconds": plan["probing_seconds"],
        "seconds": record["seconds"],
        "best": f"{best[0]} {best[1]}",
        "choice_ratio": times[chosen] / times[best],
        "all": {f"{name} {size}": value for (name, size), value in times.items()},
    }


def sweep(job: Job, chosen: tuple[str, int], seconds: float) -> dict[tuple[str, int], float]:
    """Predict the seconds of the whole run, from the median of interleaved timings of chunks."""
    pullback_only = job.operation in ("vjp", "vhp")
    streams = {}
    # A job does so first.
    warm_up()
    for strategy in (*REVERSE, *(() if pullback_only else FORWARD)):
        try:
            streams[strategy] = open_job_stream(job, strategy)
        except JobError:
            continue
    samples: dict[tuple[str, int], list[float]] = {}
    for strategy, stream in streams.items():
        lines = stream.axis.lines(stream.shape)
        stream.block(0, 1)  # verifies the batching
        line = timed(job, stream, 1)
        asked = {chosen[1]} if strategy == chosen[0] else set()
        # The time of a loop does not depend on the size of its chunks.
        wanted = {1} if strategy in LOOPS.values() else {min(size, lines) for size in SIZES}
        for size in sorted(wanted | asked):
            if size * line <= 4 * seconds or size in asked:
                line = timed(job, stream, size)
                samples[strategy, size] = [line * lines]
    for _ in range(ROUNDS - 1):
        for (strategy, size), found in samples.items():
            stream = streams[strategy]
            lines = stream.axis.lines(stream.shape)
            found.append(timed(job, stream, size) * lines)
    return {key: statistics.median(found) for key, found in samples.items()}


def timed(job: Job, stream: Stream, size: int) -> float:
    """Return the seconds per line of one chunk, with columns transposed for writing."""
    lines = stream.axis.lines(stream.shape)
    start = (lines - size) // 2
    # Consecutive chunks reuse memory, as in a run.
    stream.block(start, start + size)
    began = time.perf_counter()
    values = to_numpy(stream.block(start, start + size).values)
    # The columns of a Hessian are written as rows.
    if job.operation != "hessian":
        np.ascontiguousarray(values)
    return (time.perf_counter() - began) / size


if __name__ == "__main__":
    main()
