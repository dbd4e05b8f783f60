"""What a few chunks take in memory: ours beside torch's own ways and JAX, at equal chunk sizes.

    python benchmarks/memory_of_peers.py [--full] [--only NAME ...] [--chunk-sizes 16 64]
                                         [--repeats 1] [--json FILE]

Every contender has a process of its own, on the CPU with one thread. The process builds the
workload, does the same thing at a tiny size, so that what torch or JAX loads for it is there,
reads in all code, gives free memory back to the system and lets its high-water mark begin anew.
Then the contender is prepared and computes three chunks, each dropped before the next.

Printed is by how much the peak was above what was resident before: of each strategy by its default
engine, with that of the plain one in brackets, beside the least of the peers of the same axis and
of all. The last column leaves preparing and the first chunk out, and with them our recording and
proving and JAX's compilation: the highest that two more chunks reach, against the least of all
peers.

The mark of a process includes what its allocator keeps, which differs from run to run: with
`--repeats 3` each figure is the median of three processes. Contenders that take longer than a
minute are stopped and told.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import contenders
from contenders import SWEPT, Contender, Lines, ours, torch_func
from speed_machine import settle_jax, why_without_jax
from workloads import CPU, WORKLOADS, Instance, Workload

from jobs.machine.measurement import forget_peak, limited_memory, peak_memory, release_memory
from jobs.machine.memory import available_host_memory
from jobs.machine.warm_up import warm_up

CHUNKS = 3
MORE_CHUNKS = 2

LARGEST_OF_TINY = {"n": 8, "samples": 4, "inducing": 4, "width": 16}
"""The options of a workload that is computed to load what is loaded once."""

MEBIBYTE = 2**20

# To madvise(2), of Linux 5.14 and later: read these pages now.
POPULATE_READ = 22


@dataclass(frozen=True)
class Case:
    """A contender at a chunk size, and what was measured of it.

    Attributes:
        workload: The name of the workload.
        chunk_size: The chunk size that was asked for; a shorter matrix has fewer lines.
        group: Whose way it is.
        name: Which of its ways.
        axis: What it computes at once.
        peak: By how many bytes the peak of memory was above what was resident before.
        later_peak: The same of chunks that follow, with everything prepared.
        reason: Why there are no figures.
    """

    workload: str
    chunk_size: int
    group: str
    name: str
    axis: str
    peak: int | None = None
    later_peak: int | None = None
    reason: str = ""

    @property
    def way(self) -> str:
        """The name without the chunk size at its end."""
        return self.name.rsplit(" ", 1)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="every workload at full size")
    parser.add_argument("--only", nargs="+", help="names of workloads, or parts of them")
    parser.add_argument("--chunk-sizes", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--repeats", type=int, default=1, help="processes for each contender")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds for a contender")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at the same time")
    parser.add_argument("--json", type=Path)
    # What a process of this script is told to measure.
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    settle_jax(CPU)
    if options.case:
        print(json.dumps(measured(Case(**json.loads(options.case)), is_full=options.full)))
        return
    found: list[Case] = []
    print(heading())
    for workload in WORKLOADS:
        if options.only and not any(part in workload.name for part in options.only):
            continue
        measure = partial(in_its_own_process, is_full=options.full, patience=options.patience)
        with ThreadPoolExecutor(options.processes) as pool:
            given = cases_of(workload, options)
            rounds = [pool.map(measure, given) for _ in range(options.repeats)]
            cases = [typical(tries) for tries in zip(*rounds, strict=True)]
        print(table(cases), flush=True)
        found += cases
    print(summary(found))
    if options.json:
        options.json.write_text(json.dumps([asdict(case) for case in found], indent=1) + "\n")


def cases_of(workload: Workload, options: argparse.Namespace) -> list[Case]:
    """Every contender of a workload with every chunk size."""
    instance = workload.build(is_full=options.full)
    cases = []
    for size in options.chunk_sizes:
        for contender in contenders_of(instance, size):
            cases.append(Case(workload.name, size, contender.group, contender.name, contender.axis))
    return cases


def contenders_of(instance: Instance, size: int, group: str | None = None) -> Iterator[Contender]:
    """The contenders, or those of one group, with a chunk size."""
    contenders.swept = [size]
    if group in (None, SWEPT):
        yield from ours(instance)
    if group in (None, "torch.func"):
        yield from torch_func(instance)
    if group in (None, "JAX") and why_without_jax(CPU) is None:
        from jax_contenders import jax_contenders

        yield from jax_contenders(instance)


def in_its_own_process(case: Case, *, is_full: bool, patience: float) -> Case:
    """The case with its figures, or with the reason why there are none."""
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    command += ["--full"] if is_full else []
    # The buffers of several threads would add the number of cores to the figures.
    environment = {"OMP_NUM_THREADS": "1"} | dict(os.environ)
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=patience, env=environment
        )
    except subprocess.TimeoutExpired:
        return dataclasses.replace(case, reason=f"stopped after {patience:.0f} s")
    if ended.returncode:
        told = ended.stderr.strip().splitlines() or [f"ended with {ended.returncode}"]
        return dataclasses.replace(case, reason=told[-1][:200])
    return dataclasses.replace(case, **json.loads(ended.stdout.splitlines()[-1]))


def typical(tries: Sequence[Case]) -> Case:
    """A case with the medians of its figures; as it is where a try has none."""
    failed = next((case for case in tries if case.reason), None)
    if failed is not None:
        return failed
    figures = {
        kind: statistics.median_low([getattr(case, kind) for case in tries])
        for kind in ("peak", "later_peak")
    }
    return dataclasses.replace(tries[0], **figures)


def measured(case: Case, *, is_full: bool) -> dict[str, int]:
    """Measure a case in this process."""
    workload = next(each for each in WORKLOADS if each.name == case.workload)
    warm_up()
    rehearse(workload, case)
    contender = contender_of(workload.build(is_full=is_full), case.chunk_size, case)
    read_programs()
    release_memory()
    if not forget_peak():
        raise SystemExit("the high-water mark of memory can be reset on Linux alone")
    before = peak_memory(CPU)
    # A contender that needs more than the machine has fails, rather than being killed.
    with limited_memory(available_host_memory()[0]):
        lines = contender.prepare()
        compute(lines, contender, CHUNKS)
        peak = peak_memory(CPU)
        forget_peak()
        compute(lines, contender, MORE_CHUNKS)
    return {"peak": peak - before, "later_peak": peak_memory(CPU) - before}


def rehearse(workload: Workload, case: Case) -> None:
    """Do the same with a tiny problem: what is loaded at a first time belongs to no contender."""
    options = {
        name: min(value, LARGEST_OF_TINY.get(name, value))
        for name, value in workload.standard.items()
    }
    tiny = dataclasses.replace(workload, standard=options, vectors=min(4, workload.vectors))
    contender = contender_of(tiny.build(is_full=False), 2, case)
    compute(contender.prepare(), contender, CHUNKS)


def read_programs() -> None:
    """Have the code of all libraries in memory, whichever of it a contender is the first to use.

    It is the system's cache of files that are shared by all processes.
    """
    madvise = ctypes.CDLL(None).madvise
    for mapping in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, *_, path = mapping.split()
        if path.startswith("/") and permissions.startswith("r") and "w" not in permissions:
            start, stop = (int(address, 16) for address in span.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), POPULATE_READ)


def contender_of(instance: Instance, size: int, case: Case) -> Contender:
    """The contender of a case, of this or another instance."""
    found = contenders_of(instance, size, case.group)
    return next(each for each in found if each.way == case.way)


def compute(lines: Lines, contender: Contender, count: int) -> None:
    """Compute the first chunks, of which none is held when the next is computed."""
    for number in range(count):
        start = number * contender.chunk_size % contender.lines
        lines(start, min(start + contender.chunk_size, contender.lines))


def heading() -> str:
    return (
        f"{'MiB':>24} {'k':>3}  {'ours':24} {'(plain)':>8}   "
        f"{'least of the axis':30} {'ratio':>7}   {'least of all':30} {'ratio':>7} {'later':>7}"
    )


def table(cases: Sequence[Case]) -> str:
    """The lines of a workload: one for each chunk size and strategy of ours."""
    lines = []
    for size in dict.fromkeys(case.chunk_size for case in cases):
        at_size = [case for case in cases if case.chunk_size == size]
        lines += [line(mine, at_size) for mine in defaults(at_size)]
    for case in cases:
        if case.reason:
            lines.append(f"    left out: {case.group} {case.name}: {case.reason}")
    return "\n".join(lines)


def defaults(cases: Sequence[Case]) -> list[Case]:
    """Ours by the engine that each strategy takes unasked."""
    mine = {case.way: case for case in cases if case.group == SWEPT}
    return [
        case
        for way, case in mine.items()
        if way.endswith("captured") or f"{way.split()[0]} captured" not in mine
    ]


def line(mine: Case, at_size: Sequence[Case]) -> str:
    strategy = mine.way.split()[0]
    plain = next((case for case in at_size if case.way == f"{strategy} plain"), None)
    of_axis, of_all = least(at_size, axis=mine.axis), least(at_size)
    later = least(at_size, kind="later_peak")
    return (
        f"{mine.workload:>24} {mine.chunk_size:3}  {mine.way:24} "
        f"{shown(mine):>8} {'(' + shown(plain) + ')':>10}   "
        f"{title(of_axis):30} {ratio(mine, of_axis):>7}   "
        f"{title(of_all):30} {ratio(mine, of_all):>7} {ratio(mine, later, 'later_peak'):>7}"
    )


def least(cases: Sequence[Case], *, axis: str | None = None, kind: str = "peak") -> Case | None:
    """The peer, of an axis or of all, that takes least."""
    peers = [
        case
        for case in cases
        if case.group != SWEPT and case.peak is not None and axis in (None, case.axis)
    ]
    return min(peers, key=lambda case: getattr(case, kind), default=None)


def shown(case: Case | None) -> str:
    return "-" if case is None or case.peak is None else f"{case.peak / MEBIBYTE:.1f}"


def title(case: Case | None) -> str:
    return "-" if case is None else f"{shown(case)} {case.group.split('.')[-1]} {case.way}"


def ratio(mine: Case, peer: Case | None, kind: str = "peak") -> str:
    """Ours over a peer's; a page is the least that can be told apart."""
    if peer is None or mine.peak is None:
        return "-"
    return f"{getattr(mine, kind) / max(4096, getattr(peer, kind)):.2f}"


def summary(cases: Sequence[Case]) -> str:
    """At how many sizes the leanest strategy of ours takes no more than the leanest peer."""
    held, missed = 0, []
    for workload, size in dict.fromkeys((case.workload, case.chunk_size) for case in cases):
        here = [case for case in cases if (case.workload, case.chunk_size) == (workload, size)]
        mine = min((case.peak for case in defaults(here) if case.peak is not None), default=None)
        peer = least(here)
        if mine is None or peer is None or peer.peak is None:
            continue
        if mine <= peer.peak:
            held += 1
        else:
            missed.append(f"{workload} {size} ({mine / max(4096, peer.peak):.2f})")
    more = f"; more for {', '.join(missed)}" if missed else ""
    return f"\nour leanest strategy takes no more than the leanest peer in {held} cases{more}"


if __name__ == "__main__":
    main()
