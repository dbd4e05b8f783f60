"""Let one system call of a command fail, or kill the process at it, and have the command repeated.

    python tests/faults/sweep.py --faults 500 --seed 0

After each fault the same command must finish: its file equals that of an undisturbed run in every
dataset, is sound, and nothing else lies in the directory. The fault itself may end the command in
one message, never in a signal of its own.
"""

from __future__ import annotations

import argparse
import errno
import mmap
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from outputs import is_sparse_result, verify_result  # noqa: E402
from tests.support.warm_interpreter import WarmInterpreter  # noqa: E402

SOURCE = Path(__file__).with_name("fault_shim.c")
# What happens at the call: a signal, an error, or a write of half the bytes.
FAULTS = {
    "SIGKILL": -1,
    "short": -2,
    **{name: getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EIO", "EROFS", "EINTR")},
}
# A disk that is full, or cannot be written, stays so.
LASTING = ("ENOSPC", "EDQUOT", "EROFS")
# What these print is more than a message.
_TABLES = ("jobs.report", "jobs.status", "outputs.verify")
# The program retries these by itself.
UNNOTICED = ("short", "EINTR")
_NAMES, _NAME = 1 << 16, 16

BRUSSELATOR = ["op=jacobian", "function=brusselator", "function.n=6", "verify.differences=false"]
MORE = ["output.fsync=block", "progress=quiet"]
ROWS = [*BRUSSELATOR, *MORE, "strategy=vectorize", "chunk_size=12"]


@dataclass(frozen=True)
class Scenario:
    """A command that writes files below ``runs``, and what precedes it.

    Attributes:
        module: The module that is run.
        words: Its arguments; paths are relative to the directory in which it runs.
        before: The commands that precede it, undisturbed.
        is_result_alone: Whether only their result is kept, as ``runs/result.h5``.
    """

    module: str
    words: list[str]
    before: list[tuple[str, list[str]]] = field(default_factory=list)
    is_result_alone: bool = False


def _job(*words: str) -> Scenario:
    return Scenario("jobs.run", [*words, "runs=runs"])


def _parts() -> list[tuple[str, list[str]]]:
    job = [*ROWS, "runs=runs/parts", "shards=2"]
    return [("jobs.run", [*job, f"shard={number}"]) for number in (0, 1)]


def _of_whole(module: str, *words: str, is_result_alone: bool = True) -> Scenario:
    before = [("jobs.run", [*ROWS, "runs=runs"])]
    return Scenario(module, list(words), before, is_result_alone)


SCENARIOS = {
    "rows": _job(*ROWS),
    "columns": _job(*BRUSSELATOR, *MORE, "strategy=forward-mode", "chunk_size=12"),
    "gzip": _job(*ROWS, "output.compression=gzip"),
    "points": _job(
        "op=jacobian", "function=rosenbrock", "function.n=5", "points=leading",
        "inputs=numpy", "inputs.path=points.npy", "strategy=vectorize", "chunk_size=2",
        "verify.differences=false", *MORE,
    ),
    "sparse": _job(
        "op=jacobian", "function=burgers", "function.n=40", "sparsity=auto",
        "verify.differences=false", *MORE,
    ),
    "shard": _job(*ROWS, "shards=2", "shard=1"),
    "overwrite": Scenario(
        "jobs.run", [*ROWS, "runs=runs", "overwrite=true"], [("jobs.run", [*ROWS, "runs=runs"])]
    ),
    "merge": Scenario("outputs.merge", ["runs/parts", "-o", "runs/whole.h5"], _parts()),
    "merge, virtual": Scenario(
        "outputs.merge", ["runs/parts", "--virtual", "-o", "runs/whole.h5"], _parts()
    ),
    **{
        f"export to {to}": _of_whole(
            "outputs.export", "runs/result.h5", "--to", to, "-o", f"runs/exported.{to}"
        )
        for to in ("npy", "npz", "mat", "netcdf", "zarr")
    },
    **{
        f"inputs={kind}": _of_whole(
            "jobs.run", *ROWS, "strategy=reverse-loop", "runs=runs", f"inputs={kind}",
            "inputs.path=runs/result.h5", *more,
        )
        for kind, more in (
            ("result", ()),
            ("hdf5", ("inputs.datasets=[point/concentrations]",)),
        )
    },
    "verify": _of_whole("outputs.verify", "runs/result.h5"),
    "plot": _of_whole("outputs.plot", "runs/result.h5", "-o", "runs/plot.png"),
    "status": _of_whole("jobs.status", "runs", is_result_alone=False),
    "report": _of_whole(
        "jobs.report", "runs", "--html", "runs/r.html", "--csv", "runs/r.csv", is_result_alone=False
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """One fault.

    Attributes:
        scenario: Name of the scenario.
        fault: Name of the fault.
        number: Which call of the command it hits, from 1.
    """

    scenario: str
    fault: str
    number: int


class Sweep:
    """A place where commands are run, undisturbed and with faults.

    Args:
        folder: An empty directory.
        shim: The compiled library.
        verbose: Whether to print how a command with a fault ends.
    """

    def __init__(self, folder: Path, shim: Path, *, verbose: bool = False) -> None:
        self.verbose = verbose
        self._folder, self._shim = folder.resolve(), shim
        self._counter = self._folder / "counter"
        environment = {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"}
        self._interpreter = WarmInterpreter(environment)
        self._prepared: dict[str, tuple[Path, Path, list[str]]] = {}

    def calls(self, name: str) -> list[str]:
        """Return the names of the calls of an undisturbed command, in their order."""
        return self._of(name)[2]

    def problem(self, trial: Trial) -> str:
        """Return what is wrong after a fault; empty if nothing is."""
        scenario, place = SCENARIOS[trial.scenario], self._folder / "trial"
        undisturbed = self._of(trial.scenario)[1]
        code, output = self.ending(trial)
        if self.verbose:
            print(code, output)
        is_table = scenario.module in _TABLES
        if wrong := _of_ending(trial.fault, code, output, is_table=is_table):
            return f"{wrong}: {code} {output[-1500:]}"
        code, again = self._run(scenario, place, None)
        # The fault may have hit only what follows the file.
        if code and not (scenario.module == "outputs.export" and "already exists" in again):
            return (
                f"the same command again ends with {code}: {again[-1500:]}; before: {output[-300:]}"
            )
        return _of_files(place, undisturbed)

    def ending(self, trial: Trial) -> tuple[int, str]:
        """Run a command with a fault, and return its exit code and what it printed."""
        place = self._folder / "trial"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self._of(trial.scenario)[0], place)
        return self._run(SCENARIOS[trial.scenario], place, trial)

    def _of(self, name: str) -> tuple[Path, Path, list[str]]:
        if name not in self._prepared:
            scenario, place = SCENARIOS[name], self._folder / name.replace(" ", "-")
            before, after = place / "before", place / "after"
            (before / "runs").mkdir(parents=True)
            np.save(before / "points.npy", np.random.default_rng(0).standard_normal((6, 5)))
            for module, words in scenario.before:
                code, output = self._interpreter.run(["-m", module, *words], before)
                assert not code, output
            if scenario.is_result_alone:
                (found,) = before.glob("runs/*/result.h5")
                found.rename(before / "runs/result.h5")
                shutil.rmtree(found.parent)
            shutil.copytree(before, after)
            code, output = self._run(scenario, after, Trial(name, "none", 0))
            assert not code, output
            self._prepared[name] = before, after, _calls(self._counter)
        return self._prepared[name]

    def _run(self, scenario: Scenario, place: Path, trial: Trial | None) -> tuple[int, str]:
        if trial is None:
            return self._interpreter.run(["-m", scenario.module, *scenario.words], place)
        self._counter.unlink(missing_ok=True)
        kind, lasts = FAULTS.get(trial.fault, 0), trial.fault in LASTING
        arguments = str(self._counter), str(place / "runs"), trial.number, kind, int(lasts)
        code = (
            "import ctypes, os, runpy, sys\n"
            f"counter, under, number, kind, lasts = {arguments!r}\n"
            # For the processes that it starts.
            f"os.environ['FAULT_SHIM'] = {chr(10).join(map(str, arguments))!r}\n"
            f"arm = ctypes.CDLL({str(self._shim)!r}).fault_arm\n"
            "arm.argtypes = [ctypes.c_char_p] * 2 + [ctypes.c_uint64] + [ctypes.c_int] * 2\n"
            f"sys.argv = {[scenario.module, *scenario.words]!r}\n"
            "assert not arm(os.fsencode(counter), os.fsencode(under), number, kind, lasts)\n"
            f"runpy.run_module({scenario.module!r}, run_name='__main__', alter_sys=True)\n"
        )
        return self._interpreter.run(["-c", code], place)


def compiled(folder: Path) -> Path | None:
    """Compile the shim into a directory; None without a compiler or on another system."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        return None
    target = folder / "fault_shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", str(target), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return target


def trials(sweep: Sweep, count: int, seed: int, names: list[str]) -> Iterator[Trial]:
    """Yield faults at random, the same ones for a seed: each scenario and each fault in turn."""
    chance = random.Random(seed)
    for index in range(count):
        name = names[index % len(names)]
        calls = [*enumerate(sweep.calls(name), 1)]
        suitable = {
            fault: numbers
            for fault in FAULTS
            if (numbers := [n for n, call in calls if _is_suitable(fault, call)])
        }
        fault = chance.choice(list(suitable))
        yield Trial(name, fault, chance.choice(suitable[fault]))


def _is_suitable(fault: str, call: str) -> bool:
    if fault == "short":
        return call.startswith(("write", "pwrite"))
    if fault == "EINTR":
        return call not in ("rename", "link", "unlink", "mkdir", "rmdir", "mmap")
    return True


def _calls(counter: Path) -> list[str]:
    with counter.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        (count,) = struct.unpack_from("<Q", data)
        found = [data[16 + _NAME * n : 16 + _NAME * (n + 1)] for n in range(min(count, _NAMES))]
    return [name.split(b"\0")[0].decode() for name in found]


def _of_ending(fault: str, code: int, output: str, *, is_table: bool = False) -> str:
    """Return what is wrong with how a command with a fault ended."""
    if "Traceback" in output or "Exception ignored" in output:
        return "a traceback"
    if code in (-signal.SIGSEGV, 128 + signal.SIGSEGV, -signal.SIGABRT, 128 + signal.SIGABRT):
        return "a crash"
    if fault in UNNOTICED and code:
        return "a fault that should be unnoticed"
    if fault == "SIGKILL":
        return ""
    if code and not output.strip():
        return "no message"
    is_long = len(output.strip().splitlines()) > 8 and not is_table
    return "too long a message" if code and is_long else ""


def _of_files(place: Path, undisturbed: Path) -> str:
    """Return in what the files of a repeated command differ from those of an undisturbed one."""
    names, expected = _names(place), _names(undisturbed)
    if names != expected:
        return f"left behind {sorted(names - expected)}, missing {sorted(expected - names)}"
    for name in sorted(names):
        path, other = place / name, undisturbed / name
        if path.suffix in (".h5", ".mat", ".netcdf") and (wrong := _difference(path, other)):
            return f"{name}: {wrong}"
        if path.suffix == ".h5" and not is_sparse_result(path) and "parts" not in name:
            found = verify_result(path)
            if not found.ok:
                return f"{name}: {found.problems}"
        if path.suffix == ".npy" and path.read_bytes() != other.read_bytes():
            return f"{name} differs"
        if path.suffix == ".npz" and _members(path) != _members(other):
            return f"{name} differs"
        is_chunk = ".zarr/" in name and path.is_file() and path.name != "zarr.json"
        if is_chunk and path.read_bytes() != other.read_bytes():
            return f"{name} differs"
    return ""


def _names(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {
            name: archive.read(name) for name in archive.namelist() if not name.startswith("about_")
        }


# What says when and where a file was made.
_ABOUT_THE_RUN = ("ledger", "execution", "digests", "about", "provenance")


def _difference(path: Path, other: Path) -> str:
    with h5py.File(path) as found, h5py.File(other) as expected:
        if (names := _datasets(found)) != _datasets(expected):
            return f"the datasets {names}"
        for name in names:
            first: Any = found[name]
            second: Any = expected[name]
            if first.shape != second.shape or first.dtype != second.dtype:
                return f"the shape or type of {name}"
            # Dimension scales hold nothing.
            if first.size and not h5py.h5ds.is_scale(first.id) and _bytes(first) != _bytes(second):
                return f"the values of {name}"
    return ""


def _bytes(dataset: Any) -> bytes:
    values = dataset[()]
    return repr(values.tolist()).encode() if values.dtype.hasobject else values.tobytes()


def _datasets(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, found: isinstance(found, h5py.Dataset) and names.append(name))
    return [each for each in names if not each.startswith(("#refs#", *_ABOUT_THE_RUN))]


def main() -> None:
    """Make as many faults as asked for, print each problem, and end with 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), metavar="SCENARIO")
    parser.add_argument("--trial", nargs=3, metavar=("SCENARIO", "FAULT", "NUMBER"))
    options = parser.parse_args()
    counted: Counter[str] = Counter()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        shim = compiled(Path(folder))
        if shim is None:
            sys.exit("there is no C compiler, or this is not Linux")
        sweep = Sweep(Path(folder), shim, verbose=bool(options.trial))
        names = options.only or list(SCENARIOS)
        chosen: Any = trials(sweep, options.faults, options.seed, names)
        if options.trial:
            scenario, fault, number = options.trial
            chosen = [Trial(scenario, fault, int(number))]
        for trial in chosen:
            problem = sweep.problem(trial)
            counted["bad" if problem else "good"] += 1
            counted[trial.fault] += 1
            if not (counted["good"] + counted["bad"]) % 25:
                print(dict(counted), f"{time.monotonic() - began:.0f} s", flush=True)
            if problem:
                call = sweep.calls(trial.scenario)[trial.number - 1]
                print(f"{trial} at {call}:\n  {problem}", flush=True)
            if options.trial:
                names = [trial.scenario]
        print({name: len(sweep.calls(name)) for name in names})
    print(dict(counted), f"seed {options.seed}, {time.monotonic() - began:.0f} s")
    sys.exit(1 if counted["bad"] else 0)


if __name__ == "__main__":
    main()
