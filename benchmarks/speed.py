"""Compare the speed of derivatives with torch's own ways, JAX, and the rates of the machine.

    python benchmarks/speed.py [--full] [--set users] [--only NAME ...] [--repeats 3] [--json FILE]
                               [--plot FILE] [--device cuda:0]

For each workload, every variant first runs briefly with chunk sizes of 1, 4, 16, 64, 256 and all.
Whole jobs follow, from the call to the last line: the default job, which plans, verifies and
writes, and each peer with its best chunk size, including linearization and a file written by plain
h5py, but without verification; the times are taken with that file flushed to the disk, as ours is,
and without. Peers that would take longer than twenty seconds are left out of this part.

Finally, blocks run interleaved, and the medians are printed, without and with writing the matrix to
an HDF5 file on the disk (peers by plain h5py, ours by the writer of a job): ours with the strategy,
engine and chunk size that the default job chose, and the fastest variant of each group, including
ours. A variant that would take longer than the time limit of a measurement is measured on its first
chunks and scaled up. Preparation is not timed: JAX's compilation, our recording and checking.

On a CUDA device, CUDA events are the clock, and two more figures are printed for ours: the share of
the time in which kernels run, and the ratio of computing and copying together to the longer of the
two.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import clocks
import contenders
import torch
from contenders import (
    DEFAULT,
    SWEPT,
    Contender,
    functional,
    ours,
    ours_by_default,
    ours_compiled,
    torch_func,
)
from speed_machine import (
    bytes_for_a_chunk,
    floor,
    fraction_of_floor,
    limit_threads,
    machine,
    settle_jax,
    why_without_jax,
)
from speed_report import paragraph, plot, summary
from speed_writing import timed_writing, writing_alone
from timing import timed
from torch.utils._python_dispatch import TorchDispatchMode
from whole_jobs import default_job, whole_peer
from workloads import SETS, Instance

from jobs.errors import ConfigurationError
from jobs.machine.devices import choose_devices

SECONDS_OF_A_WHOLE_JOB = 20.0
"""The time limit of a peer's whole job."""


def main() -> None:
    options = parsed()
    device = torch.device(options.device)
    warnings.simplefilter("ignore")
    if options.chunk_sizes:
        contenders.swept = options.chunk_sizes
    if options.threads:
        limit_threads(options.threads)
    if options.cpu_time:
        clocks.now = time.process_time
    settle_jax(device)
    report: dict[str, Any] = {"machine": machine(device), "floor": floor(device)}
    report["workloads"] = []
    print(json.dumps({key: report[key] for key in ("machine", "floor")}, indent=1), flush=True)
    for workload in SETS[options.set]:
        if options.only and not any(part in workload.name for part in options.only):
            continue
        instance = workload.build(is_full=options.full, device=device)
        found = compare(instance, options)
        found["floor"] = fraction_of_floor(instance, found["seconds"][DEFAULT], report["floor"])
        report["workloads"].append(found)
        print(paragraph(found), flush=True)
        if options.json:  # after each: a run that is stopped leaves what it has
            options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(summary(report["workloads"]))
    if options.plot:
        plot(report["workloads"], options.plot)


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="every workload at full size")
    parser.add_argument(
        "--set",
        choices=tuple(SETS),
        default="problems",
        help="the built-in problems, or functions of kinds that users bring",
    )
    parser.add_argument("--only", nargs="+", help="names of workloads, or parts of them")
    parser.add_argument("--device", default="cpu", help="as in the option devices")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--screen", type=float, default=0.5, help="seconds for screening")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds for a measurement")
    parser.add_argument("--chunk-sizes", type=int, nargs="+", help="instead of all of them")
    parser.add_argument("--no-writing", action="store_true", help="compute only")
    parser.add_argument("--no-whole", action="store_true", help="no whole jobs")
    parser.add_argument("--threads", type=int, help="of torch and of JAX")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count processor time instead of wall time, for a shared machine",
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    try:
        options.device = str(choose_devices(options.device, "float32")[0])
    except ConfigurationError as error:
        parser.error(f"--device: {error}")
    if options.device != "cpu" and options.cpu_time:
        parser.error("--cpu-time: a device's time is none of the processor's")
    return options


def compare(instance: Instance, options: argparse.Namespace) -> dict[str, Any]:
    """Screen all variants, then time the best of each group interleaved."""
    screened, ways, left_out = screening(instance, options.screen)
    best = {
        group: min(of_group.values(), key=lambda each: screened[each.group][each.name])
        for group, of_group in ways.items()
    }
    default = next(c for c in functional(instance) if is_default(c))
    # A peer's best variant is determined again for whole jobs: some take long to prepare.
    apart = {**ways, "torch.autograd.functional, default": {default.way: default}}
    peers = {} if options.no_whole else whole_ways(apart, screened, instance)
    job, whole = whole_jobs(peers, options, instance)
    best = {DEFAULT: ours_by_default(instance, job), **best}
    finalists = {**best, "torch.autograd.functional, default": default}
    times = interleaved(finalists, options, instance, is_written=False)
    written = {} if options.no_writing else interleaved(best, options, instance, is_written=True)
    alone = None if options.no_writing else writing_alone(best[DEFAULT], instance, options.repeats)
    return {
        "name": instance.workload.name,
        "options": instance.options,
        "shape": [instance.rows, instance.columns],
        "best": {group: contender.name for group, contender in best.items()},
        "seconds": times,
        "written": written,
        "writing_alone": alone,
        "default_job": job,
        "whole": {group: found["seconds"] for group, found in whole.items()},
        "durable": {group: found["durable_seconds"] for group, found in whole.items()},
        "on_device": on_device(best[DEFAULT], instance.device),
        "screened": screened,
        "left_out": left_out,
    }


def screening(
    instance: Instance, seconds: float
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, Contender]], dict[str, str]]:
    """Return the times, the variants at their best chunk sizes, and the reasons for leaving out."""
    a_line = bytes_of_an_evaluation(instance)
    screened: dict[str, dict[str, float]] = {SWEPT: {}}
    ways: dict[str, dict[str, Contender]] = {}
    left_out: dict[str, str] = {}
    # The times screened so far determine what is compiled.
    compiled = ours_compiled(instance, screened[SWEPT])
    for contender in chain(all_contenders(instance), compiled):
        title = f"{contender.group} {contender.name}"
        needed = contender.chunk_size * a_line
        if needed > bytes_for_a_chunk(instance.device) and contender.chunk_size > 1:
            left_out[title] = "needs too much memory"
            continue
        try:
            taken = timed(contender.prepare(), contender, instance, seconds)
        # A peer that cannot compute a workload is a finding, whatever the type of its exception.
        except Exception as error:
            left_out[title] = f"{type(error).__name__}: {error}"[:200]
            continue
        group = screened.setdefault(contender.group, {})
        group[contender.name] = taken
        of_group = ways.setdefault(contender.group, {})
        before = of_group.get(contender.way)
        if before is None or taken < group[before.name]:
            of_group[contender.way] = contender
    return screened, ways, left_out


def on_device(contender: Contender, device: torch.device) -> dict[str, float]:
    """Measure how well ours keeps a device busy; return nothing for a CPU."""
    if device.type == "cpu":
        return {}
    from device_figures import figures

    return figures(contender.prepare(), contender, device)


def whole_ways(
    ways: dict[str, dict[str, Contender]],
    screened: dict[str, dict[str, float]],
    instance: Instance,
) -> dict[str, Contender]:
    """Return each peer's variant that is fastest from call to file, within the time limit."""

    def is_quick(contender: Contender) -> bool:
        return screened[contender.group].get(contender.name, math.inf) <= SECONDS_OF_A_WHOLE_JOB

    found: dict[str, Contender] = {}
    for group, of_group in ways.items():
        quick = list(filter(is_quick, of_group.values()))
        if group != SWEPT and quick:
            found[group] = min(quick, key=lambda each: whole_peer(each, instance)["seconds"])
    return found


def whole_jobs(
    peers: dict[str, Contender], options: argparse.Namespace, instance: Instance
) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Return the default job of median time, and the times of interleaved whole jobs by group."""
    # Loading, which happens once per process, is not part of a job.
    default_job(instance)
    jobs: list[dict[str, Any]] = []
    taken: dict[str, list[dict[str, float]]] = {group: [] for group in peers}
    for _ in range(options.repeats if peers else 1):
        jobs.append(default_job(instance))
        for group, contender in peers.items():
            taken[group].append(whole_peer(contender, instance))
    typical = sorted(jobs, key=lambda job: job["seconds"])[len(jobs) // 2]
    mine = {"seconds": typical["seconds"], "durable_seconds": typical["seconds"]}
    medians = {
        group: {kind: statistics.median(each[kind] for each in found) for kind in found[0]}
        for group, found in taken.items()
    }
    return typical, {DEFAULT: mine, **medians} if peers else {}


def all_contenders(instance: Instance) -> Iterator[Contender]:
    yield from ours(instance)
    yield from torch_func(instance)
    yield from functional(instance)
    if why_without_jax(instance.device) is None:
        from jax_contenders import jax_contenders

        yield from jax_contenders(instance)


def is_default(contender: Contender) -> bool:
    """Return whether it is the default of `torch.autograd.functional`."""
    return contender.group == "torch.autograd.functional" and contender.name in (
        "vectorize=False",
        "hvp",
        "vjp",
    )


class Allocations(TorchDispatchMode):
    """Sums the bytes of all results of operators that are not views of their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in args if torch.is_tensor(each)}
        if torch.is_tensor(result) and result.untyped_storage().data_ptr() not in given:
            self.bytes += result.numel() * result.itemsize
        return result


def bytes_of_an_evaluation(instance: Instance) -> int:
    with torch.no_grad(), Allocations() as allocations:
        instance.function(*instance.point)
    return allocations.bytes + 4 * max(instance.rows, instance.columns)


def interleaved(
    finalists: dict[str, Contender],
    options: argparse.Namespace,
    instance: Instance,
    *,
    is_written: bool,
) -> dict[str, float]:
    """Return the median time of each finalist, measured in turn."""
    ready = {group: contender.prepare() for group, contender in finalists.items()}
    times: dict[str, list[float]] = {group: [] for group in finalists}
    for _ in range(options.repeats):
        for group, contender in finalists.items():
            take = timed_writing if is_written else timed
            times[group].append(take(ready[group], contender, instance, options.seconds))
    return {group: statistics.median(seconds) for group, seconds in times.items()}


if __name__ == "__main__":
    main()
