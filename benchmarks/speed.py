# JAX is a peer in these benchmarks, and installed for them alone.
# pyright: reportMissingImports=false
"""How fast derivatives come, beside torch's own ways and JAX, and beside what the machine can do.

    python benchmarks/speed.py [--full] [--only NAME ...] [--repeats 3] [--json FILE] [--plot FILE]

For each workload every way is tried briefly with chunk sizes of 1, 4, 16, 64, 256 and all; the
fastest of each group then run interleaved, and medians are printed, with and without writing the
matrix to an HDF5 file (plainly by h5py; ours by the job's writer). What would take longer than the
time that a measurement is given is measured on the first chunks and scaled up. Preparation is not
counted: JAX's compilation, our recording and proving.

Last come whole jobs, from the call to the last line: the default job, which plans, proves and
writes, beside each peer with the chunk size that was found for it, linearising included, nothing
proved or written. Peers that would take longer than a minute are left out of these.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import contenders
import h5py
import numpy as np
import torch
from contenders import Contender, Lines, functional, ours, torch_func
from torch.utils._python_dispatch import TorchDispatchMode
from whole_jobs import default_job, whole_peer
from workloads import WORKLOADS, Instance

from outputs import BackgroundWriter, ResultDescription, ResultWriter, TensorSpec

now = time.perf_counter
"""The clock of all measurements."""

SECONDS_OF_A_WHOLE_JOB = 60.0
"""What a peer may take in all to be run from beginning to end."""

BYTES_IN_USE = 4 * 2**30
"""What a chunk may take at most, by a rough count; larger ones are left out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--full", action="store_true", help="every workload at full size")
    parser.add_argument("--only", nargs="+", help="names of workloads, or parts of them")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--screen", type=float, default=0.5, help="seconds for a first look")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds for a measurement")
    parser.add_argument("--chunk-sizes", type=int, nargs="+", help="instead of all of them")
    parser.add_argument("--no-writing", action="store_true", help="compute only")
    parser.add_argument("--no-whole", action="store_true", help="no whole jobs")
    parser.add_argument("--threads", type=int, help="of torch and of JAX")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count processor time instead of the clock's, for a machine that others use too",
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.chunk_sizes:
        contenders.swept = options.chunk_sizes
    if options.threads:
        limit_threads(options.threads)
    if options.cpu_time:
        global now
        now = time.process_time
    report: dict[str, Any] = {"machine": machine(), "floor": floor(), "workloads": []}
    print(json.dumps({key: report[key] for key in ("machine", "floor")}, indent=1), flush=True)
    for workload in WORKLOADS:
        if options.only and not any(part in workload.name for part in options.only):
            continue
        instance = workload.build(is_full=options.full)
        found = compare(instance, options)
        found["floor"] = fraction_of_floor(instance, found["seconds"]["ours"], report["floor"])
        report["workloads"].append(found)
        print(paragraph(found), flush=True)
    print(summary(report["workloads"]))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.plot:
        plot(report["workloads"], options.plot)


def limit_threads(count: int) -> None:
    """Give torch and JAX so many threads; before JAX is loaded."""
    torch.set_num_threads(count)
    if count == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def machine() -> dict[str, Any]:
    """What the figures were seen on."""
    versions = {"torch": torch.__version__, "h5py": h5py.__version__, "numpy": np.__version__}
    if has_jax():
        import jax

        versions["jax"] = jax.__version__
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "clock": "processor time" if now is time.process_time else "wall",
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        **versions,
    }


def processor() -> str:
    """The processor's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")


def has_jax() -> bool:
    return importlib.util.find_spec("jax") is not None


def floor() -> dict[str, float]:
    """What this machine can do: products, copies and sequential writing."""
    a, b = torch.randn(2048, 4096), torch.randn(4096, 4096)
    rates = {"torch_gemm_flops": 2 * 2048 * 4096 * 4096 / median_time(lambda: a @ b)}
    if has_jax():
        import jax
        import jax.numpy as jnp

        c, d = jnp.asarray(a.numpy()), jnp.asarray(b.numpy())
        product = jax.jit(lambda c, d: c @ d)
        seconds = median_time(lambda: jax.block_until_ready(product(c, d)))
        rates["jax_gemm_flops"] = 2 * 2048 * 4096 * 4096 / seconds
    source, target = torch.ones(64 * 2**20), torch.empty(64 * 2**20)
    rates["copied_bytes_per_second"] = 2**28 / median_time(lambda: target.copy_(source))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "sequential"
        rates["written_bytes_per_second"] = 2**28 / median_time(lambda: write_plainly(path))
    return rates


def write_plainly(path: Path) -> None:
    """256 MiB from memory to the disk."""
    piece = bytes(2**22)
    with path.open("wb") as file:
        for _ in range(64):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def median_time(action: Callable[[], Any], repeats: int = 5) -> float:
    """The median time of an action, after one that does not count."""
    action()
    times = []
    for _ in range(repeats):
        started = now()
        action()
        times.append(now() - started)
    return statistics.median(times)


def compare(instance: Instance, options: argparse.Namespace) -> dict[str, Any]:
    """Screen all ways, then time the best of each group interleaved."""
    a_line = bytes_of_an_evaluation(instance)
    screened: dict[str, dict[str, float]] = {}
    best: dict[str, Contender] = {}
    left_out: dict[str, str] = {}
    for contender in all_contenders(instance):
        if contender.chunk_size * a_line > BYTES_IN_USE and contender.chunk_size > 1:
            left_out[f"{contender.group} {contender.name}"] = "needs too much memory"
            continue
        try:
            seconds = measured(contender.prepare(), contender, options.screen)
        # A peer that cannot do a workload is a finding, of whatever type its exception is.
        except Exception as error:
            left_out[f"{contender.group} {contender.name}"] = f"{type(error).__name__}: {error}"[
                :200
            ]
            continue
        group = screened.setdefault(contender.group, {})
        group[contender.name] = seconds
        if seconds <= min(group.values()):
            best[contender.group] = contender
    default = next(c for c in functional(instance) if is_default(c))
    finalists = {**best, "torch.autograd.functional, default": default}
    times = interleaved(finalists, options, instance, is_written=False)
    written = {} if options.no_writing else interleaved(best, options, instance, is_written=True)
    jobs, whole = ({}, {}) if options.no_whole else whole_jobs(finalists, times, options, instance)
    return {
        "name": instance.workload.name,
        "options": instance.options,
        "shape": [instance.rows, instance.columns],
        "best": {group: contender.name for group, contender in best.items()},
        "seconds": times,
        "written": written,
        "default_job": jobs,
        "whole": whole,
        "screened": screened,
        "left_out": left_out,
    }


def whole_jobs(
    finalists: dict[str, Contender],
    times: dict[str, float],
    options: argparse.Namespace,
    instance: Instance,
) -> tuple[dict[str, Any], dict[str, float]]:
    """The default job, and the seconds of each whole job, interleaved."""
    peers = {
        group: contender
        for group, contender in finalists.items()
        if group != "ours" and times[group] <= SECONDS_OF_A_WHOLE_JOB
    }
    # What is loaded once a process belongs to no job.
    default_job(instance)
    jobs: list[dict[str, Any]] = []
    seconds: dict[str, list[float]] = {group: [] for group in peers}
    for _ in range(options.repeats):
        jobs.append(default_job(instance))
        for group, contender in peers.items():
            seconds[group].append(whole_peer(contender))
    typical = sorted(jobs, key=lambda job: job["seconds"])[len(jobs) // 2]
    whole = {group: statistics.median(found) for group, found in seconds.items()}
    return typical, {"ours": typical["seconds"], **whole}


def all_contenders(instance: Instance) -> Iterator[Contender]:
    yield from ours(instance)
    yield from torch_func(instance)
    yield from functional(instance)
    if has_jax():
        from jax_contenders import jax_contenders

        yield from jax_contenders(instance)


def is_default(contender: Contender) -> bool:
    """Whether it is what `torch.autograd.functional` does unasked."""
    return contender.group == "torch.autograd.functional" and contender.name in (
        "vectorize=False",
        "hvp",
        "vjp",
    )


class Allocations(TorchDispatchMode):
    """Adds up the bytes of all results of operators."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.bytes += result.numel() * result.itemsize
        return result


def bytes_of_an_evaluation(instance: Instance) -> int:
    with torch.no_grad(), Allocations() as allocations:
        instance.function(*instance.point)
    return allocations.bytes + 4 * max(instance.rows, instance.columns)


def measured(
    lines: Lines,
    contender: Contender,
    seconds: float,
    keep: Callable[[int, int, Any], None] = (lambda start, stop, values: None),
) -> float:
    """The time for all lines, from as many chunks as fit into the given time."""
    size = contender.chunk_size
    done = 0
    started = now()
    keep(0, size, lines(0, size))
    first = now() - started
    # A long first chunk is measurement enough, unless it was compiled.
    if first > seconds and contender.group != "JAX":
        return first * contender.lines / size
    started = now()
    while done < contender.lines and (done == 0 or now() - started < seconds):
        stop = min(done + size, contender.lines)
        keep(done, stop, lines(done, stop))
        done = stop
    return (now() - started) * contender.lines / done


def interleaved(
    finalists: dict[str, Contender],
    options: argparse.Namespace,
    instance: Instance,
    *,
    is_written: bool,
) -> dict[str, float]:
    """The median time of each finalist, one after the other and again."""
    ready = {group: contender.prepare() for group, contender in finalists.items()}
    times: dict[str, list[float]] = {group: [] for group in finalists}
    for _ in range(options.repeats):
        for group, contender in finalists.items():
            times[group].append(
                timed_writing(ready[group], contender, instance, options.seconds)
                if is_written
                else measured(ready[group], contender, options.seconds)
            )
    return {group: statistics.median(seconds) for group, seconds in times.items()}


def timed_writing(lines: Lines, contender: Contender, instance: Instance, seconds: float) -> float:
    """The time with the matrix written to a file, until the last byte is handed over."""
    directory = Path(tempfile.mkdtemp(prefix="autodiff-jobs-speed-"))
    try:
        if contender.group == "ours":
            return ours_written(lines, contender, instance, seconds, directory)
        shape = (instance.rows, instance.columns)
        with h5py.File(directory / "plain.h5", "w") as file:
            matrix = file.create_dataset("matrix", shape, "f4")

            def keep(start: int, stop: int, values: Any) -> None:
                array = np.asarray(values)[: stop - start]
                if contender.axis == "rows":
                    matrix[start:stop] = array
                else:
                    matrix[:, start:stop] = array.T

            return measured(lines, contender, seconds, keep)
    finally:
        shutil.rmtree(directory)


def ours_written(
    lines: Lines, contender: Contender, instance: Instance, seconds: float, directory: Path
) -> float:
    """Ours with the writer of a job: laid out before, written in the background."""
    rows, columns = instance.rows, instance.columns
    description = ResultDescription(
        operation="jacobian",
        strategy="vectorize" if contender.axis == "rows" else "forward-mode",
        function="benchmark",
        fingerprint="0",
        axis="rows" if contender.axis == "rows" else "columns",
        rows=(TensorSpec("y", (rows,), "float32"),),
        columns=(TensorSpec("x", (columns,), "float32"),),
        dtype="float32",
        rows_are_tuple=False,
        columns_are_tuple=False,
        point={},
        value={},
        vectors={},
        configuration="",
        provenance={},
    )
    size = contender.chunk_size
    lines(0, size)
    done = 0
    with ResultWriter.create(directory / "result.h5", description) as result:
        started = now()
        with BackgroundWriter(result) as background:
            while done < contender.lines and (done == 0 or now() - started < seconds):
                stop = min(done + size, contender.lines)
                array = lines(done, stop).detach().numpy()
                background.submit(done, stop, array if contender.axis == "rows" else array.T)
                done = stop
        return (now() - started) * contender.lines / done


def fraction_of_floor(
    instance: Instance, seconds: float, floor: dict[str, float]
) -> dict[str, float]:
    """Counted operations and bytes a second, as fractions of what the machine does."""
    size = instance.rows * instance.columns * 4
    fractions = {"matrix_bytes_of_copying": size / seconds / floor["copied_bytes_per_second"]}
    if instance.workload.problem == "mlp":
        n = instance.options["n"]
        # The products behind the last one, which with one-hot vectors is a selection.
        operations = 2 * n * (4 * n * n + 2 * n * n)
        fractions["products_of_gemm"] = operations / seconds / floor["torch_gemm_flops"]
    return fractions


def paragraph(found: dict[str, Any]) -> str:
    """One workload for people."""
    mine = found["seconds"]["ours"]
    lines = [f"\n{found['name']}, {found['shape'][0]} x {found['shape'][1]}, {found['options']}"]
    for group, seconds in found["seconds"].items():
        name = found["best"].get(group, "")
        written = found["written"].get(group)
        shown = "" if written is None else f"  written {written:9.4f} s"
        lines.append(f"  {group:36} {seconds:9.4f} s  {seconds / mine:7.2f} of ours{shown}  {name}")
    if job := found["default_job"]:
        lines.append(f"  default job, {job['chosen']}: {job['seconds']:.3f} s")
        probing, computing = job["probing_seconds"], job["computing_seconds"]
        lines.append(f"    probing {probing:.3f} s, computing and writing {computing:.3f} s")
        for group, seconds in found["whole"].items():
            if group != "ours":
                lines.append(f"    {group:36} {seconds:9.4f} s  {seconds / job['seconds']:7.2f}")
    fractions = ", ".join(f"{key} {value:.2f}" for key, value in found["floor"].items())
    lines.append(f"  {fractions}")
    for name, reason in found["left_out"].items():
        if "memory" not in reason:
            lines.append(f"  left out: {name}: {reason}")
    return "\n".join(lines)


def summary(found: list[dict[str, Any]]) -> str:
    """Ratios to every group: geometric mean and worst."""
    lines = [
        "\nhow much longer than ours, geometric mean and least (written in brackets; whole jobs)"
    ]
    for group in {group: None for workload in found for group in workload["seconds"]}:
        ratios = ratios_to(group, found, "seconds")
        if group == "ours" or not ratios:
            continue
        written = ratios_to(group, found, "written")
        shown = f"  ({mean(written):.2f}, {min(written):.2f})" if written else ""
        if whole := ratios_to(group, found, "whole"):
            shown += f"  {mean(whole):.2f} {min(whole):.2f}"
        lines.append(f"  {group:36} {mean(ratios):7.2f} {min(ratios):7.2f}{shown}")
    return "\n".join(lines)


def ratios_to(group: str, found: list[dict[str, Any]], kind: str) -> list[float]:
    return [
        workload[kind][group] / workload[kind]["ours"]
        for workload in found
        if group in workload[kind]
    ]


def mean(ratios: Iterable[float]) -> float:
    return statistics.geometric_mean(ratios)


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """How much longer than ours each group takes, as bars."""
    from matplotlib.figure import Figure

    groups = [
        g
        for g in ("torch.autograd.functional, default", "torch.func", "JAX")
        if any(g in workload["seconds"] for workload in found)
    ]
    figure = Figure(figsize=(9, 0.6 * len(found) + 1.5), layout="constrained")
    axes = figure.subplots()
    for number, group in enumerate(groups):
        places = [index + 0.25 * (number - 1) for index in range(len(found))]
        ratios = [
            workload["seconds"].get(group, math.nan) / workload["seconds"]["ours"]
            for workload in found
        ]
        axes.barh(places, ratios, 0.25, label=group)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(found)), [workload["name"] for workload in found])
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel("time, as a multiple of ours")
    axes.legend()
    figure.savefig(path)


if __name__ == "__main__":
    main()
