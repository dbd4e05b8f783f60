"""Have everything that reads files open hostile ones, in a process with little memory and time.

    python tests/support/hostile_reading.py --files 2000 --seed 0

Every reader must answer, or refuse with one ResultError or JobError, within a GiB and ten seconds
of computing; a file may not end the process, print a traceback or reach the terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.hostile_making import hostile_status, mutate, write_bases  # noqa: E402

# Seconds of computing and, for what waits, of the clock; the machine may be busy.
SECONDS, MOST_SECONDS, MEMORY = 10, 120, 2**30
# How many readers read every file, and how many of the other readers do.
_ALWAYS, _SOMETIMES = 6, 3
# How many hostile status files lie beside each.
_STATUSES = 10


def readers(path: Path, scratch: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield everything that reads files of unknown origin, by name."""
    import torch

    from jobs.configuration.schema import Hdf5Source, ResultSource
    from jobs.failure_messages import failure_message
    from jobs.paths import STATUS
    from jobs.report import main as report
    from jobs.sources.reading import read_source
    from jobs.status import main as status
    from outputs import (
        analyse,
        export,
        merge,
        open_result,
        open_sparse_result,
        plot,
        show,
        verify_result,
    )

    def whole() -> None:
        with open_result(path, allow_partial=True) as result:
            _ = result[...], result.mask, result.probes, result.description(), repr(result)
            _ = result.as_torch(), result.as_linear_operator() @ np.ones(result.shape[1])

    def sparse() -> None:
        with open_sparse_result(path) as result:
            _ = result.as_scipy(), result.as_torch(), result.colours, list(result.ranges())
            operator: Any = result.as_linear_operator()
            _ = operator @ np.ones(result.shape[1]), operator.T @ np.ones(result.shape[0])

    def datasets(links: bool) -> None:
        names: list[str] = []
        with h5py.File(path) as file:
            file.visit(names.append)
        for name in names:
            source = Hdf5Source("hdf5", str(path), None, [name], links)
            try:
                for array in read_source("inputs", source).values():
                    array.require_numbers(torch.float64, name)
                    array.tensor(torch.float64, torch.device("cpu"))
            except Exception as error:
                # What the command line reports in one sentence.
                if failure_message(error) is None:
                    raise

    def point() -> None:
        for array in read_source("inputs", ResultSource("result", str(path))).values():
            array.values[()]

    yield "open", whole
    yield "open sparse", sparse
    yield "verify_result", lambda: verify_result(path)
    yield "inputs=result", point
    yield "inputs=hdf5", lambda: datasets(False)
    yield "inputs=hdf5, links", lambda: datasets(True)
    yield "show", lambda: show.main([str(path)])
    asked = ["--trace", "--singular-values", "2", "-o", str(scratch / "answers.h5")]
    yield "analyse", lambda: analyse.main([str(path), *asked])
    yield "plot", lambda: plot.main([str(path), "-o", str(scratch / "p.png")])
    yield "merge", lambda: merge.main([str(path), "-o", str(scratch / "m.h5")])
    for to in ("npz", "mat", "netcdf", "zarr", "mtx", "h5ad"):
        target = str(scratch / f"e.{to}")
        yield (
            f"export {to}",
            lambda to=to, target=target: export.main([str(path), "--to", to, "-o", target]),
        )
    (scratch / "run").mkdir()
    shutil.copy(path, scratch / "run" / "result.h5")
    for number in range(_STATUSES):
        directory = scratch / f"status {number}"
        directory.mkdir()
        (directory / STATUS).write_bytes(hostile_status(random.Random(f"{path.name} {number}")))
    shutil.copy(scratch / "status 0" / STATUS, scratch / "run" / STATUS)
    page = str(scratch / "r.html")
    yield "report", lambda: report([str(scratch), "--html", page])
    yield "status", lambda: status([str(scratch)])


def _refusals() -> tuple[type[Exception], ...]:
    from jobs.errors import JobError
    from outputs import ResultError

    return ResultError, JobError


def check(path: Path) -> list[tuple[str, str]]:
    """Have every reader open a file, and return (reader, what is wrong) for each that fails."""
    problems = []
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        every = list(readers(path, Path(folder)))
        # The commands that write take long; each file is read by some of them.
        some = random.Random(path.name).sample(every[_ALWAYS:-1], _SOMETIMES)
        for name, read in [*every[:_ALWAYS], *some, every[-1]]:
            print(json.dumps({"at": name}), file=sys.__stdout__, flush=True)
            out = io.StringIO()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.alarm(MOST_SECONDS)
            try:
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                    read()
            except _refusals() as error:
                print(error, file=out)
            except BaseException:
                problems.append((name, traceback.format_exc(limit=-3)))
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.alarm(0)
            text = out.getvalue()
            if {"\x1b", "\x07", "\r"} & set(text.replace("\x1b[?25", "")):
                problems.append((name, f"control characters: {text!r:.300}"))
            if "Traceback" in text:
                problems.append((name, text))
        written = {each.name for each in path.parent.iterdir()} - {Path(folder).name}
        if extra := {each for each in written if each.endswith(".new")}:
            problems.append(("files", f"left behind: {extra}"))
    return problems


def serve() -> None:
    """Read paths from stdin, and print the problems of each file."""
    import matplotlib.figure
    import scipy.sparse
    import torch

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    del matplotlib, scipy, torch
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    for line in sys.stdin:
        problems = check(Path(line.strip()))
        print(json.dumps({"done": line.strip(), "problems": problems}), flush=True)


class _Child:
    """A process that reads files, and is replaced when it dies."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        command = [sys.executable, __file__, "--serve"]
        self._process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, cwd=ROOT,
        )  # fmt: skip

    def check(self, path: Path) -> list[list[str]]:
        """Return the problems of a file; the death of the process is one of them."""
        print(path, file=self._process.stdin, flush=True)
        at = "start"
        for line in self._process.stdout:
            answer = json.loads(line)
            if "done" in answer:
                return answer["problems"]
            at = answer["at"]
        code = self._process.wait()
        self._start()
        return [[at, f"the process ended with {code}"]]

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def run(folder: Path, seeds: Iterable[int]) -> Iterator[tuple[int, list[str], list[list[str]]]]:
    """Make and check a file for each seed; yield the seed, what was changed, and the problems."""
    bases = write_bases(folder)
    child = _Child()
    try:
        for seed in seeds:
            chance = random.Random(seed)
            base = chance.choice(bases)
            path = folder / f"hostile{seed}.h5"
            shutil.copy(base, path)
            changes = [base.stem, *mutate(path, chance)]
            yield seed, changes, child.check(path)
            path.unlink()
    finally:
        child.close()


def main() -> None:
    """Check as many files as asked for, print each problem, and end with 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    counted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for seed, changes, problems in run(
            Path(folder), range(options.seed, options.seed + options.files)
        ):
            counted["bad" if problems else "good"] += 1
            if not counted.total() % 50:
                print(dict(counted), flush=True)
            for reader, problem in problems:
                counted[f"in {reader}"] += 1
                print(f"seed {seed} {changes}\n  {reader}: {problem}", flush=True)
    print(dict(counted), f"of {options.files} files from seed {options.seed}")
    sys.exit(1 if counted["bad"] else 0)


if __name__ == "__main__":
    main()
