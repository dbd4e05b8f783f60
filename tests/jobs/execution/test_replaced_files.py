"""A file that other programs remove, replace or cut while a job writes it is never published."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import JobError
from jobs.execution.execute import execute
from jobs.job import Job
from jobs.reporting.terminal import Display
from outputs import ResultWriter, open_result, part_path, verify_result
from tests.support.processes import committed, start_job, wait_for

Resolve = Callable[..., Job]
OPTIONS = ("op=hessian", "strategy=vectorize", "function=rosenbrock", "function.n=12")


def replaced(part: Path, early: Path) -> None:
    copy = part.with_name("restored")
    shutil.copy(early, copy)
    copy.replace(part)


def rewritten(part: Path, early: Path) -> None:
    """Give the file the content of an earlier copy, as ``rsync --inplace`` does."""
    with part.open("r+b") as file:
        file.write(early.read_bytes())


def removed(part: Path, early: Path) -> None:
    part.unlink()


def cut_short(part: Path, early: Path) -> None:
    os.truncate(part, part.stat().st_size // 2)


@pytest.fixture
def expected(resolved: Resolve, quiet: Display) -> np.ndarray:
    with open_result(execute(resolved(*OPTIONS, "runs=expected"), quiet)) as result:
        return result[:]


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(
    ("change", "at", "message"),
    [
        (replaced, 3, "was replaced by another program"),
        (removed, 3, "was removed by another program"),
        (cut_short, 3, "was cut short by another program"),
        (replaced, None, "was replaced by another program"),
        (removed, None, "was removed by another program"),
        (rewritten, None, "are the first missing ones"),
        (rewritten, 3, "are the first missing ones"),
    ],
)
def test_what_was_not_written_by_the_job_is_not_published(
    change: Callable[[Path, Path], None],
    at: int | None,
    message: str,
    compression: str,
    resolved: Resolve,
    quiet: Display,
    expected: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    job = resolved(*OPTIONS, "chunk_size=2", f"output.compression={compression}")
    early, part = tmp_path / "early", part_path(job.paths.result)
    write, finish, count = ResultWriter.write, ResultWriter.finish, 0

    def write_and_change(self: ResultWriter, start: int, stop: int, values: np.ndarray) -> None:
        nonlocal count
        write(self, start, stop, values)
        count += 1
        if count == 1:
            shutil.copy(part, early)
        if count == at:
            change(part, early)

    def change_and_finish(self: ResultWriter, *arguments: object, **options: object) -> Path:
        if at is None:
            change(part, early)
        return finish(self, *arguments, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("outputs._writing.background._BYTES_AT_ONCE", 1)
    monkeypatch.setattr(ResultWriter, "write", write_and_change)
    monkeypatch.setattr(ResultWriter, "finish", change_and_finish)
    with pytest.raises(JobError, match=message):
        execute(job, quiet)
    assert not job.paths.result.exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    with open_result(execute(job, quiet)) as result:
        np.testing.assert_array_equal(result[:], expected)
    assert verify_result(job.paths.result).ok
    assert not part.exists()


def test_a_file_that_took_the_name_of_an_empty_one_is_kept(
    resolved: Resolve, quiet: Display, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = resolved(*OPTIONS)
    part = part_path(job.paths.result)

    def write_another(self: ResultWriter, start: int, stop: int, values: np.ndarray) -> None:
        part.unlink()
        part.write_text("of the user")
        raise KeyboardInterrupt

    monkeypatch.setattr(ResultWriter, "write", write_another)
    with pytest.raises(KeyboardInterrupt):
        execute(job, quiet)
    assert part.read_text() == "of the user"
    monkeypatch.undo()
    with pytest.raises(JobError, match=r"is not an HDF5 file.*overwrite=true"):
        execute(job, quiet)
    assert execute(job, quiet, overwrite=True) == job.paths.result


def test_what_is_no_file_is_refused_by_its_name(resolved: Resolve, quiet: Display) -> None:
    paths = resolved(*OPTIONS).paths
    paths.directory.mkdir(parents=True)
    part = part_path(paths.result)
    owner = part.with_name(f"{part.name}.owner")
    # A pipe in place of the status would let everything wait that looks for the directory.
    os.mkfifo(paths.status)
    for path in (paths.result, part, owner, part_path(paths.replacement), paths.log):
        for make, remove in (
            (os.mkfifo, os.unlink),
            (os.mkdir, os.rmdir),
            (lambda path: os.symlink("nowhere", path), os.unlink),
        ):
            make(path)
            for overwrite in (False, True):
                with pytest.raises(JobError, match="a directory, a pipe or a link") as refused:
                    execute(resolved(*OPTIONS), quiet, overwrite=overwrite)
                assert str(path) in str(refused.value)
            remove(path)
    assert execute(resolved(*OPTIONS), quiet) == paths.result


SLOW = """
import time
import torch

def f(x):
    time.sleep(0.02)
    return x.sin() * x.sum()

def point(): return torch.linspace(0.5, 1.5, 200, dtype=torch.float64)
"""


def test_a_restored_copy_ends_the_running_command_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow.py").write_text(SLOW)
    options = ("op=jacobian", "strategy=forward-loop", "chunk_size=2", "function=python")
    options = (*options, "function.target=slow:f", "function.point=slow:point")
    job = start_job(*options)
    wait_for(lambda: committed(tmp_path) > 5, job)
    (part,) = tmp_path.glob("runs/*/result.h5.part")
    shutil.copy(part, tmp_path / "copy")
    os.replace(tmp_path / "copy", part)
    output, errors = job.communicate(timeout=60)
    assert job.returncode == 1, output + errors
    assert "was replaced by another program" in errors
    assert "overwrite=true begins again" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.glob("runs/*/result.h5")) == []
    again = start_job(*options)
    output, errors = again.communicate(timeout=100)
    assert again.returncode == 0, output + errors
    with open_result(output.splitlines()[-1]) as result:
        x = result.points["x"]
        exact = np.diag(np.cos(x) * x.sum()) + np.sin(x)[:, None]
        np.testing.assert_allclose(result[:], exact, rtol=1e-12)
        assert result.execution["lines_resumed"] > 0
