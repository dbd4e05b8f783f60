"""``python -m jobs.doctor``: describe this installation and check that it works.

The output is meant to be pasted into a bug report.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jobs.machine import compiler, launchers

_PACKAGES = ("torch", "hydra-core", "omegaconf", "numpy", "h5py", "rich", "safetensors")
_OPTIONAL = (
    *("scipy", "xarray", "h5netcdf", "dask", "zarr", "matplotlib", "pyarrow"),
    *(*launchers.PACKAGES, "mpi4py", "numba"),
)
_PROGRAMS = ("sbatch", "srun", "qsub", "mpirun", "torchrun", "nvidia-smi", "h5dump")
SELF_TEST = ("op=hessian", "strategy=vectorize", "function=rosenbrock", "function.n=300")


def _facts(runs: Path) -> dict[str, dict[str, str]]:
    """Collect the facts about this installation, by section.

    Args:
        runs: The directory in which results would be written.
    """
    return {
        "program": {
            "autodiff-jobs": _version("autodiff-jobs"),
            "python": f"{platform.python_version()} ({sys.executable})",
            "platform": platform.platform(),
        },
        "packages": {name: _version(name) for name in _PACKAGES},
        "optional packages": {name: _version(name) for name in _OPTIONAL},
        "hdf5": _hdf5(),
        "devices": _devices(),
        "compiler": {"C++": _compiler()},
        "memory and disk": {**_memory(), "disk": _disk(runs)},
        "launchers": {
            "hydra": ", ".join(_launchers()),
            "programs": ", ".join(name for name in _PROGRAMS if shutil.which(name)) or "none",
        },
    }


def _self_test() -> str:
    """Compute, write, read and verify a small Hessian; return how long it took, as text.

    Raises:
        RuntimeError: The job or the verification failed; the text says which.
    """
    from outputs import verify_result

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jobs.run", *SELF_TEST, "progress=quiet"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
        )
        if done.returncode != 0:
            raise RuntimeError(f"the job ended with {done.returncode}: {done.stderr.strip()}")
        verification = verify_result(done.stdout.strip())
        if verification.exit_code:
            raise RuntimeError(f"the result is {verification.verdict}")
    return f"passed in {time.monotonic() - started:.1f} s"


def main(arguments: list[str] | None = None) -> None:
    """Print the facts and the outcome of the self-test; exit with code 1 if it fails."""
    parser = argparse.ArgumentParser(
        prog="python -m jobs.doctor",
        description="Show versions, devices, memory and disk, and run a small job.",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        help="where results would be written (default: runs)",
    )
    parser.add_argument("--no-test", action="store_true", help="skip the self-test")
    parser.add_argument(
        "--clean",
        type=Path,
        metavar="RUNS",
        help="only remove what killed processes left in the directories of runs below RUNS; "
        "results, finished or not, and what a running process uses stay",
    )
    given = parser.parse_args(arguments)
    if given.clean is not None:
        _clean(given.clean, parser)
        return
    for section, entries in _facts(given.runs).items():
        print(section)
        for name, value in entries.items():
            print(f"  {name:<24} {value}")
    if given.no_test:
        return
    try:
        print(f"self-test\n  {_self_test()}")
    # Any reason why jobs do not work here belongs in the report.
    except Exception as error:
        print(f"self-test\n  failed: {error}")
        sys.exit(1)


def _clean(runs: Path, parser: argparse.ArgumentParser) -> None:
    """Remove leftovers below a directory, and print what was removed."""
    from jobs.execution.run_lock import tidy_below

    if not runs.is_dir():
        parser.error(f"--clean {runs}: there is no such directory")
    removed = tidy_below(runs)
    for path in removed:
        print(path)
    print(f"{len(removed)} removed below {runs.absolute()}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _hdf5() -> dict[str, str]:
    import h5py

    config = h5py.h5.get_config()
    names = {"gzip": h5py.h5z.FILTER_DEFLATE, "szip": h5py.h5z.FILTER_SZIP, "lzf": 32000}
    filters = [name for name, number in names.items() if h5py.h5z.filter_avail(number)]
    return {
        "version": h5py.version.hdf5_version,
        "mpi": str(bool(config.mpi)),
        "filters": ", ".join(filters),
    }


def _devices() -> dict[str, str]:
    import torch

    from jobs.configuration.device_names import devices_here
    from jobs.machine.accelerator import device_memory, device_name

    found = {"cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of torch"}
    names = devices_here()
    if not names:
        built = torch.accelerator.current_accelerator()
        found["others"] = f"none (torch is built for {built.type if built else 'the CPU only'})"
    for name in names:
        device = torch.device(name)
        memory = [_gigabytes(each) for each in device_memory(device) or ()]
        free = f", {' of '.join(memory)} free" if memory else ""
        found[name] = f"{device_name(device)}{free}"
    return found


def _compiler() -> str:
    path, name = compiler.compiler_path(), compiler.compiler_name()
    if path is None:
        return (
            f"none: {name} is not installed, so derivatives are not compiled for "
            "the CPU, and some long runs take up to twice as long; CXX names another compiler"
        )
    done = subprocess.run([path, "--version"], capture_output=True, text=True)
    return f"{(done.stdout.splitlines() or ['unknown'])[0]} ({path})"


def _memory() -> dict[str, str]:
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    free = page * os.sysconf("SC_AVPHYS_PAGES")
    information = Path("/proc/meminfo")
    # Unlike the figure above, MemAvailable includes memory of the file cache that can be freed.
    if information.exists():
        lines = dict(line.split(":") for line in information.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    return {"memory": f"{_gigabytes(free)} of {_gigabytes(total)} free"}


def _disk(runs: Path) -> str:
    existing = next(
        place for place in (runs.absolute(), *runs.absolute().parents) if place.exists()
    )
    usage = shutil.disk_usage(existing)
    access = "" if os.access(existing, os.W_OK) else ", not writable"
    return f"{_gigabytes(usage.free)} of {_gigabytes(usage.total)} free at {existing}{access}"


def _launchers() -> list[str]:
    from hydra.core.plugins import Plugins
    from hydra.plugins.launcher import Launcher

    found = Plugins.instance().discover(Launcher)
    return sorted(each.__name__ for each in found)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


if __name__ == "__main__":
    main()
