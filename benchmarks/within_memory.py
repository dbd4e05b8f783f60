"""Run jobs within small memory budgets that would exceed the machine's memory as one matrix.

    python benchmarks/within_memory.py [--only pairwise gp big]

Each runs the real command with `memory=`, in its own process tree, whose resident memory is sampled
from outside every 20 milliseconds. The last one writes a matrix of 32 GiB and also runs under a
hard limit: a control group if one can be created (as root), else a limit of the address space
(`ulimit -v`). The benchmark prints the budget, the peak memory of the computing process, the
prediction of the plan, and the times.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from jobs.units import duration, parse_size, size
from outputs import open_result

_SECONDS_BETWEEN_LOOKS = 0.02


@dataclass(frozen=True)
class Case:
    """A job, its budget, and the hard limit under which it runs, if any."""

    options: tuple[str, ...]
    memory: str
    limit: str | None = None


CASES = {
    "pairwise": Case(("op=hessian", "function=pairwise_energy", "function.n=2483"), "4GiB"),
    "gp": Case(
        (
            *("op=jacobian", "function=gp_residual", "function.n=10000"),
            *("function.inducing=1000", "dtype=float32"),
        ),
        "1GiB",
    ),
    "big": Case(("op=jacobian", "function=brusselator", "function.n=182"), "1GiB", "3GiB"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--directory", help="where the results are written, and removed again")
    given = parser.parse_args()
    for name in given.only:
        with tempfile.TemporaryDirectory(dir=given.directory) as place:
            run(name, CASES[name], Path(place))


def run(name: str, case: Case, place: Path) -> None:
    command = [sys.executable, "-m", "jobs.run", *case.options, f"memory={case.memory}"]
    started = time.monotonic()
    with hard_limit(case.limit) as (enter, limited_by):
        process = subprocess.Popen(
            [*command, f"runs={place}/runs", "progress=quiet"],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=enter,
        )
        most = watched(process)
    seconds = time.monotonic() - started
    output = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"{name}: the job exited with {process.returncode}")
    budget = parse_size(case.memory)
    with open_result(output.splitlines()[-1]) as result:
        record, shape = result.execution, result.shape
        stored = size(Path(result.path).stat().st_size)
    predicted = record["plan"]["predicted_peak_bytes"]
    print(
        f"{name}: {shape[0]} x {shape[1]}, {stored} in {duration(seconds)} "
        f"({duration(record['plan']['predicted_seconds'])} predicted for the blocks, "
        f"{duration(record['seconds'])} taken); {result.strategy} {record['chunk_sizes']}\n"
        f"  memory: at most {size(most)} of {size(budget)} ({most / budget:.2f}), "
        f"{size(predicted)} predicted ({record['peak_memory_bytes'] / predicted:.2f}){limited_by}",
        flush=True,
    )


def watched(process: subprocess.Popen[str]) -> int:
    """Return the peak resident memory of the largest process of the tree, in bytes."""
    most = 0
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            tree = [parent, *parent.children(recursive=True)]
            most = max(most, *(each.memory_info().rss for each in tree))
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return most


@contextlib.contextmanager
def hard_limit(limit: str | None) -> Iterator[tuple[Callable[[], object] | None, str]]:
    """Yield what a new process calls to run under a limit, and a description of the limit."""
    if limit is None:
        yield None, ""
        return
    most = parse_size(limit)
    for top in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        group = top / f"within-memory-{uuid.uuid4().hex[:8]}"
        try:
            group.mkdir()
            names = ("memory.limit_in_bytes", "memory.max")
            name = next(each for each in names if (group / each).exists())
            (group / name).write_text(str(most))
        except (OSError, StopIteration):
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        try:
            yield partial(_enter, group), f"; in a control group of {size(most)}"
        finally:
            group.rmdir()
        return
    limiting = partial(resource.setrlimit, resource.RLIMIT_AS, (most, most))
    yield limiting, f"; ulimit -v of {size(most)}"


def _enter(group: Path) -> None:
    (group / "cgroup.procs").write_text(str(os.getpid()))


if __name__ == "__main__":
    main()
