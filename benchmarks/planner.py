"""Measure how accurate the plan of a job is, and how good its choice.

For each problem and operation a default job runs in a separate process; its record has the
predicted and the actual figures. Then this process plans and computes the matrix as the job does,
and times chunks of every strategy, engine and many sizes: what a user who knew the best of them
would wait for, its opening included, is compared with what the choice takes by itself, and with
what the job takes, its planning included. All are in processor time, which other programs disturb
less.

    python benchmarks/planner.py [--set problems|users] [--seconds 1.0] [--only mlp ...]
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
from workloads import USERS

from autodiff_core import engines
from jobs.errors import JobError, OutOfMemoryError
from jobs.job import Job
from jobs.machine.memory import memory_budget
from jobs.machine.warm_up import warm_up
from jobs.planning.search import decide
from jobs.strategies import LOOPS
from jobs.streams.opening import open_job_stream
from jobs.streams.stream import Stream, to_numpy
from outputs import open_result

PROBLEMS = {
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
CASES = {
    "problems": {
        f"{operation} {problem}": [f"op={operation}", f"function={problem}", *options]
        for (operation, problem), options in PROBLEMS.items()
    },
    "users": {
        each.name: [f"op={each.operation}", *each.job_options({}), "dtype=float32"]
        for each in USERS
    },
}
ROUNDS = 3
SIZES = (1, 4, 16, 64, 256, 10**9)
FORWARD = ("forward-mode", "forward-loop")
REVERSE = ("vectorize", "reverse-loop")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--set", choices=sorted(CASES), default="problems")
    parser.add_argument("--seconds", type=float, default=1.0, help="a chunk at most, about")
    parser.add_argument("--only", nargs="*", default=[], help="parts of names")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = []
    print(
        f"{'case':28} {'peak':>6} {'time':>6} {'chosen':>26} {'s':>7} {'best by hand':>26} "
        f"{'s':>7} {'choice':>6} {'job':>6}"
    )
    for name, options in CASES[given.set].items():
        if given.only and not any(each in name for each in given.only):
            continue
        found.append(one := {"name": name, **predicted(options), **choice(options, given.seconds)})
        print(
            f"{name:28} {one['memory_ratio']:6.2f} {one['time_ratio']:6.2f} {one['chosen']:>26} "
            f"{one['chosen_seconds']:7.3f} {one['best']:>26} {one['best_seconds']:7.3f} "
            f"{one['choice_ratio']:6.2f} {one['job_ratio']:6.2f}",
            flush=True,
        )
    for what in ("choice", "job"):
        ratios = [one[f"{what}_ratio"] for one in found]
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        print(
            f"{what} against the best by hand: geometric mean {mean:.2f}, worst {max(ratios):.2f}"
        )
    print("peak: used / predicted bytes; time: used / predicted seconds of the run")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


def predicted(options: list[str]) -> dict[str, Any]:
    """Run a job, and compare what it took with what its plan predicted."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "jobs.run", *options, f"runs={place}/runs"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=place)
        with open_result(done.stdout.splitlines()[-1]) as result:
            record, shape = result.execution, result.shape
    plan = record["plan"]
    return {
        "options": options,
        "shape": shape,
        "memory_ratio": record["peak_memory_bytes"] / plan["predicted_peak_bytes"],
        "time_ratio": record["seconds"] / plan["predicted_seconds"],
        "probing_seconds": plan["probing_seconds"],
        "seconds": record["seconds"],
    }


def choice(options: list[str], seconds: float) -> dict[str, Any]:
    """Compare what a job takes, its planning included, with the best that a user could choose."""
    job = job_of(options)
    # A process does so once, whatever it computes.
    warm_up()
    first_batch(job)
    taken = [planned(job) for _ in range(ROUNDS)]
    chosen, chosen_seconds = min(taken, key=lambda each: each[1])
    times = by_hand(job, seconds)
    strategy, engine, size = chosen.split()
    # Again, as the fastest of the others is the fastest of many.
    alone = [one_by_hand(job, strategy, engine, int(size), seconds)[1] for _ in range(ROUNDS)]
    best = min(times, key=lambda key: times[key])
    return {
        "chosen": chosen,
        "chosen_seconds": chosen_seconds,
        "best": best,
        "best_seconds": times[best],
        "choice_ratio": min(*alone, times.get(chosen, math.inf)) / times[best],
        "job_ratio": chosen_seconds / times[best],
        "all": times,
        "choices": taken,
    }


def first_batch(job: Job) -> None:
    """Let torch load what the first batch and the first recording of a process load."""
    for strategy in ("vectorize", *(() if job.operation in ("vjp", "vhp") else ("forward-mode",))):
        try:
            stream = open_job_stream(job, strategy)
            stream.block(0, min(2, stream.axis.lines(stream.shape)))
        except JobError:
            continue


def planned(job: Job) -> tuple[str, float]:
    """Plan a job and compute all blocks; return the choice, and the processor time of both."""
    began = time.process_time()
    decision = decide(job, memory_budget(job.memory, job.device), strategy="auto")
    stream, size = decision.stream, decision.chunk_size
    lines = stream.axis.lines(stream.shape)
    for start in range(0, lines, size):
        on_host(job, stream, start, min(start + size, lines))
    return f"{decision.strategy} {stream.engine} {size}", time.process_time() - began


def by_hand(job: Job, seconds: float) -> dict[str, float]:
    """Return the processor time of the whole matrix for each strategy, engine and chunk size.

    That of the first chunk counts once, the others are as the median of a few.
    """
    times: dict[str, float] = {}
    pullback_only = job.operation in ("vjp", "vhp")
    for strategy in (*REVERSE, *(() if pullback_only else FORWARD)):
        names = engines(job.operation, strategy)
        for engine in ("plain", "captured") if "captured" in names else ("plain",):
            line = 0.0
            for size in SIZES if strategy not in LOOPS.values() else (1,):
                if size * line > 4 * seconds:
                    break
                try:
                    found = one_by_hand(job, strategy, engine, size, seconds)
                except (JobError, OutOfMemoryError):
                    break
                name, total, line = found
                times[name] = min(total, times.get(name, math.inf))
    return times


def one_by_hand(
    job: Job, strategy: str, engine: str, size: int, seconds: float
) -> tuple[str, float, float]:
    """Time one choice; return its name, the seconds of all lines, and those of one."""
    began = time.process_time()
    stream = open_job_stream(job, strategy, engine)
    opening = time.process_time() - began
    lines = stream.axis.lines(stream.shape)
    size = min(size, lines)
    chunks = [(start, min(start + size, lines)) for start in range(0, lines, size)]
    samples: list[float] = []
    # The first two chunks prepare: they record, and verify.
    for start, stop in (*chunks[:2], *chunks[2 : 2 + ROUNDS]):
        began = time.process_time()
        on_host(job, stream, start, stop)
        samples.append(time.process_time() - began)
        if sum(samples) > 4 * seconds:
            break
    rest = len(chunks) - len(samples)
    line = samples[-1] / size
    total = opening + sum(samples) + rest * statistics.median(samples[2:] or samples[-1:])
    return f"{strategy} {stream.engine} {size}", total, line


def on_host(job: Job, stream: Stream, start: int, stop: int) -> None:
    """Compute a block and bring it to the host, with columns turned to be written."""
    values = to_numpy(stream.block(start, stop).values)
    # The columns of a Hessian are written as rows.
    if job.operation != "hessian":
        np.ascontiguousarray(values)


if __name__ == "__main__":
    main()
