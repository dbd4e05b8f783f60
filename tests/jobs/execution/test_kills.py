"""Each state in which a kill can leave the directory of a run is one that the next start mends."""

import os
import signal
from collections.abc import Callable

import numpy as np
import pytest

from jobs.execution.execute import execute
from jobs.execution.run_lock import computing_in
from jobs.job import Job
from jobs.reporting.terminal import Display
from outputs import open_result, verify_result
from tests.support.processes import ending, forked

Resolve = Callable[..., Job]
OPTIONS = (
    *("op=hessian", "strategy=vectorize", "function=rosenbrock", "function.n=12"),
    "verify.differences=false",
)

# Where the process is killed: a function, and the end of the path that it is given, if that
# distinguishes the call.
POINTS = {
    "the layout has no name": ("outputs._writing.writer.publish", ".part"),
    "the owner is written": ("outputs._writing.lock.Claim._is_as_signed", ""),
    "a block is written": ("outputs._format.ledger.Ledger.commit", ""),
    "the record is written": ("outputs._writing.writer.missing_on_disk", ""),
    "tiles are compressed": ("outputs._writing.compression._copy_records", ""),
    "the result has no name": ("outputs._writing.writer.give_name", ""),
    "the result has two names": ("os.unlink", "result.h5.part"),
    "a complete copy has the name": ("outputs._writing.writer.Path.unlink", ".h5.part"),
    "the status is not written": ("jobs.records.status_file.StatusFile.finish", ""),
}
OF_COPIES = ("tiles are compressed", "a complete copy has the name")


def killed(job: Job, display: Display, point: str, *, overwrite: bool) -> int:
    """Run a job in a process that is killed at a point; return how it ended."""

    def command() -> None:
        with pytest.MonkeyPatch.context() as patch:
            name, suffix = POINTS[point]
            owner, _, attribute = name.rpartition(".")
            patch.setattr("outputs._writing.background._BYTES_AT_ONCE", 1)
            patch.setattr(name, _killing(_found(owner), attribute, suffix))
            execute(job, display, overwrite=overwrite)

    return ending(forked(command))


def _found(name: str) -> object:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


def _killing(owner: object, attribute: str, suffix: str) -> Callable[..., object]:
    real = getattr(owner, attribute)

    def kill(*arguments: object, **options: object) -> object:
        if any(str(each).endswith(suffix) for each in arguments) or not suffix:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    return kill


@pytest.mark.parametrize(
    ("is_finished_before", "next_start"),
    [
        (False, "the same command"),
        (False, "overwrite=true"),
        (True, "the same command"),
        (True, "overwrite=true"),
        (True, "requeued"),
    ],
)
@pytest.mark.parametrize("point", POINTS)
def test_the_next_start_mends_what_a_kill_leaves(
    point: str,
    is_finished_before: bool,
    next_start: str,
    resolved: Resolve,
    quiet: Display,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compression = "gzip" if point in OF_COPIES else "none"
    job = resolved(*OPTIONS, "chunk_size=3", f"output.compression={compression}")
    if is_finished_before:
        execute(job, quiet)
    code = killed(job, quiet, point, overwrite=is_finished_before)
    # A replacement takes its name in one step.
    is_one_step = is_finished_before and point == "the result has two names"
    assert code == (0 if is_one_step else -signal.SIGKILL)
    is_overwriting = next_start != "the same command"
    if next_start == "requeued":
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    path = execute(job, quiet, overwrite=is_overwriting)
    assert verify_result(path).ok
    with open_result(path) as result:
        x = result.points["x"]
        diagonal = 1200 * x**2 - 400 * np.append(x[1:], 0) + 202
        diagonal[-1], diagonal[0] = 200, 1200 * x[0] ** 2 - 400 * x[1] + 2
        beside = np.diag(-400 * x[:-1], 1)
        np.testing.assert_allclose(result[:], np.diag(diagonal) + beside + beside.T, rtol=1e-10)
    left = {file.name for file in path.parent.iterdir()} - {"result.h5", "status.json"}
    # What an interrupted `overwrite=true` has begun stays for the same command.
    begun = {"replacement.h5.part", "replacement.h5.part.owner"}
    assert left <= (begun if is_finished_before and not is_overwriting else set())


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_replacement_that_an_earlier_version_named_is_no_obstacle(
    overwrite: bool, resolved: Resolve, quiet: Display, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = resolved(*OPTIONS)
    path = execute(job, quiet)
    job.paths.replacement.write_bytes(path.read_bytes())
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    before = path.stat().st_ino
    assert execute(job, quiet, overwrite=overwrite) == path
    assert (path.stat().st_ino != before) == overwrite
    assert job.paths.replacement.exists() != overwrite


def test_leftovers_of_others_and_files_of_the_user_stay(resolved: Resolve, quiet: Display) -> None:
    job = resolved(*OPTIONS)
    directory = job.paths.directory
    directory.mkdir(parents=True)
    for name in ("my.new", "status.json.bak", "notes.part", "result.h5.01234567.new"):
        (directory / name).write_text("mine")
    with computing_in(directory):
        pass
    assert {file.name for file in directory.iterdir()} == {
        "my.new",
        "status.json.bak",
        "notes.part",
    }


def test_a_finished_sparse_result_loses_its_products(resolved: Resolve, quiet: Display) -> None:
    options = ("op=hessian", "function=rosenbrock", "function.n=200", "sparsity=auto")
    job = resolved(*options, "strategy=vectorize")
    path = execute(job, quiet)
    products = path.parent / "products-by-columns" / "shard-0-of-2"
    products.mkdir(parents=True)
    (products / "result.h5.part").write_text("")
    (path.parent / "colouring.npz").write_text("")
    with computing_in(products):
        execute(job, quiet)
        assert (products / "result.h5.part").exists()
    execute(job, quiet)
    assert {file.name for file in path.parent.iterdir()} == {"result.h5", "status.json"}
