"""Measure the memory of a few chunks: ours, torch's and JAX's, at equal chunk sizes.

    python benchmarks/memory_of_peers.py [--full] [--only NAME ...] [--chunk-sizes 16 64]
                                         [--repeats 1] [--json FILE]

Every contender runs in a separate process, on the CPU with one thread. The process builds the
workload, computes a tiny instance of it, so that torch or JAX has loaded everything, reads all code
into memory, returns free memory to the system and resets its high-water mark. Then the contender is
prepared and computes three chunks, each released before the next.

The benchmark prints how far the peak exceeded the resident memory before: for each strategy by its
default engine (in brackets: by the plain one), beside the smallest peer of the same axis and of all
peers. The last column leaves out preparation and the first chunk, and with them our recording and
checking and JAX's compilation: it has the peak of two more chunks, relative to the smallest peer.

The high-water mark includes memory that the allocator caches, which differs from run to run: with
`--repeats 3` each figure is the median of three processes. Contenders that take longer than a
minute are stopped and reported.
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
"""Upper bounds of the options of the tiny instance that makes the libraries load."""

MEBIBYTE = 2**20

# To madvise(2), of Linux 5.14 and later: read these pages now.
POPULATE_READ = 22


@dataclass(frozen=True)
class Case:
    """A contender at a chunk size, and its figures.

    Attributes:
        workload: The name of the workload.
        chunk_size: The requested chunk size; a shorter matrix has fewer lines.
        group: The library it belongs to.
        name: The variant's name, with the chunk size.
        axis: The axis of its chunks.
        peak: How many bytes the peak memory exceeded the resident memory before; None if unknown.
        later_peak: The same for later chunks, when everything is prepared.
        reason: Why there are no figures; else empty.
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
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds for a contender")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at the same time")
    parser.add_argument("--json", type=Path)
    # The case that a child process measures.
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
        measure = partial(in_its_own_process, is_full=options.full, time_limit=options.time_limit)
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
    """Return every contender of a workload with every chunk size."""
    instance = workload.build(is_full=options.full)
    cases = []
    for size in options.chunk_sizes:
        for contender in contenders_of(instance, size):
            cases.append(Case(workload.name, size, contender.group, contender.name, contender.axis))
    return cases


def contenders_of(instance: Instance, size: int, group: str | None = None) -> Iterator[Contender]:
    """Yield the contenders, or those of one group, with a chunk size."""
    contenders.swept = [size]
    if group in (None, SWEPT):
        yield from ours(instance)
    if group in (None, "torch.func"):
        yield from torch_func(instance)
    if group in (None, "JAX") and why_without_jax(CPU) is None:
        from jax_contenders import jax_contenders

        yield from jax_contenders(instance)


def in_its_own_process(case: Case, *, is_full: bool, time_limit: float) -> Case:
    """Measure a case in a separate process; return it with its figures or the reason for none."""
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    command += ["--full"] if is_full else []
    # The buffers of several threads would add the number of cores to the figures.
    environment = {"OMP_NUM_THREADS": "1"} | dict(os.environ)
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=time_limit, env=environment
        )
    except subprocess.TimeoutExpired:
        return dataclasses.replace(case, reason=f"stopped after {time_limit:.0f} s")
    if ended.returncode:
        lines = ended.stderr.strip().splitlines() or [f"exited with {ended.returncode}"]
        return dataclasses.replace(case, reason=lines[-1][:200])
    return dataclasses.replace(case, **json.loads(ended.stdout.splitlines()[-1]))


def typical(tries: Sequence[Case]) -> Case:
    """Return a case with the medians of its figures, or a failed try if there is one."""
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
    if not forget_peak(CPU):
        raise SystemExit("the high-water mark of memory can be reset on Linux only")
    before = peak_memory(CPU)
    # A contender that needs more memory than the machine has fails instead of being killed.
    with limited_memory(available_host_memory()[0]):
        lines = contender.prepare()
        compute(lines, contender, CHUNKS)
        peak = peak_memory(CPU)
        forget_peak(CPU)
        compute(lines, contender, MORE_CHUNKS)
    return {"peak": peak - before, "later_peak": peak_memory(CPU) - before}


def rehearse(workload: Workload, case: Case) -> None:
    """Compute a tiny instance, so that no contender pays for loading libraries."""
    options = {
        name: min(value, LARGEST_OF_TINY.get(name, value))
        for name, value in workload.standard.items()
    }
    tiny = dataclasses.replace(workload, standard=options, vectors=min(4, workload.vectors))
    contender = contender_of(tiny.build(is_full=False), 2, case)
    compute(contender.prepare(), contender, CHUNKS)


def read_programs() -> None:
    """Read the code of all libraries into memory, whichever contender uses it first.

    It is in the page cache, which all processes share.
    """
    madvise = ctypes.CDLL(None).madvise
    for mapping in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, *_, path = mapping.split()
        if path.startswith("/") and permissions.startswith("r") and "w" not in permissions:
            start, stop = (int(address, 16) for address in span.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), POPULATE_READ)


def contender_of(instance: Instance, size: int, case: Case) -> Contender:
    """Return the contender of a case for an instance."""
    found = contenders_of(instance, size, case.group)
    return next(each for each in found if each.way == case.way)


def compute(lines: Lines, contender: Contender, count: int) -> None:
    """Compute the first chunks, and release each before the next."""
    for number in range(count):
        start = number * contender.chunk_size % contender.lines
        lines(start, min(start + contender.chunk_size, contender.lines))


def heading() -> str:
    return (
        f"{'MiB':>24} {'k':>3}  {'ours':24} {'(plain)':>8}   "
        f"{'least of the axis':30} {'ratio':>7}   {'least of all':30} {'ratio':>7} {'later':>7}"
    )


def table(cases: Sequence[Case]) -> str:
    """Return the lines of a workload: one for each chunk size and strategy of ours."""
    lines = []
    for size in dict.fromkeys(case.chunk_size for case in cases):
        at_size = [case for case in cases if case.chunk_size == size]
        lines += [line(mine, at_size) for mine in defaults(at_size)]
    for case in cases:
        if case.reason:
            lines.append(f"    left out: {case.group} {case.name}: {case.reason}")
    return "\n".join(lines)


def defaults(cases: Sequence[Case]) -> list[Case]:
    """Return ours by the default engine of each strategy."""
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
    """Return the peer, of one axis or of all, that needs least memory."""
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
    """Return the ratio of ours to a peer's; less than a page cannot be resolved."""
    if peer is None or mine.peak is None:
        return "-"
    return f"{getattr(mine, kind) / max(4096, getattr(peer, kind)):.2f}"


def summary(cases: Sequence[Case]) -> str:
    """Report in how many cases our leanest strategy needs no more than the leanest peer."""
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
    return f"\nour leanest strategy needs no more than the leanest peer in {held} cases{more}"


if __name__ == "__main__":
    main()
