"""The same command again resumes where it was stopped, and leaves a finished result alone."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from jobs.errors import JobError
from jobs.execution.execute import execute
from jobs.job import Job
from jobs.reporting.terminal import Display
from outputs import (
    Result,
    ResultError,
    ResultWriter,
    open_result,
    part_path,
    verify_result,
)
from tests.support.warm_interpreter import WarmPopen, run_warm

Resolve = Callable[..., Job]
LINES = 60
SMALL = ("op=hessian", "strategy=vectorize", "function=rosenbrock", "function.n=12")

# A loop over columns evaluates its function for each; here it counts and takes its time.
SLOW = """
import os, time
import torch

def f(x):
    with open("evaluations", "a") as file:
        file.write(".")
    time.sleep(float(os.environ["SECONDS"]))
    if os.environ.get("FAILS"):
        raise ValueError("as it was asked to")
    return torch.outer(x, x).reshape(-1)

def point(): return torch.arange(60.0) + 1
"""
COMMAND = (
    *(sys.executable, "-m", "jobs.run", "op=jacobian", "strategy=forward-loop", "chunk_size=2"),
    *("function=python", "function.target=slow:f", "function.point=slow:point"),
)


def start(directory: Path, seconds: float) -> subprocess.Popen[str]:
    (directory / "slow.py").write_text(SLOW)
    return WarmPopen(
        COMMAND,
        cwd=directory,
        env={**os.environ, "SECONDS": str(seconds)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def evaluations(directory: Path) -> int:
    counted = directory / "evaluations"
    return counted.stat().st_size if counted.exists() else 0


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGKILL, -9, ""),
        (signal.SIGINT, 130, "interrupted; what was computed is kept"),
    ],
)
def test_a_job_that_was_stopped_continues(
    number: signal.Signals, code: int, message: str, tmp_path: Path
) -> None:
    stopped = start(tmp_path, seconds=0.05)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/*.part")) and time.monotonic() < deadline:
        time.sleep(0.01)
    begun = evaluations(tmp_path)
    while evaluations(tmp_path) < begun + 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    stopped.send_signal(number)
    output, errors = stopped.communicate(timeout=60)
    assert stopped.returncode == code, output + errors
    assert message in errors
    assert "Traceback" not in errors
    (part,) = tmp_path.glob("runs/*/*.part")
    assert not part_path(part).exists()

    again = start(tmp_path, seconds=0)
    output, errors = again.communicate(timeout=60)
    assert again.returncode == 0, output + errors
    result = Path(output.splitlines()[-1])
    assert part == part_path(result)
    assert not part.exists()
    with open_result(result) as opened:
        done = opened.execution["lines_resumed"]
        assert 0 < done < LINES
        assert f"{done} of {LINES} columns are done already" in output
        x = opened.points["x"]
        eye = np.eye(LINES)
        expected = eye[:, None, :] * x[None, :, None] + eye[None, :, :] * x[:, None, None]
        np.testing.assert_allclose(opened[...], expected.reshape(-1, LINES), rtol=1e-12)


def test_a_finished_job_is_left_alone(command_line: Callable[..., Any], directory: Path) -> None:
    first = command_line(*SMALL)
    path = first.result
    before = path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino
    again = command_line(*SMALL, "chunk_size=5")
    assert again.code == 0
    assert "finished already" in again.out
    assert again.result == path
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_overwriting_replaces(resolved: Resolve, quiet: Display) -> None:
    job = resolved(*SMALL, "chunk_size=2")
    path = execute(job, quiet)
    before = path.stat().st_ino
    with open_result(path) as result:
        expected = result[...]
    path.with_name("note.txt").write_text("mine")
    assert execute(job, quiet, overwrite=True) == path
    assert path.stat().st_ino != before
    with open_result(path) as result:
        np.testing.assert_array_equal(result[...], expected)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "note.txt",
        "result.h5",
        "status.json",
    ]


def test_overwriting_what_does_not_exist_computes_it(
    run_job: Callable[..., Result],
) -> None:
    assert run_job(*SMALL, overwrite=True).complete


def test_a_plan_writes_nothing(command_line: Callable[..., Any], directory: Path) -> None:
    finished = command_line(*SMALL, "plan=true")
    assert finished.code == 0
    assert "12 rows x 12 columns" in finished.out
    assert [path for path in directory.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("in_order")
def test_a_first_block_that_fails_leaves_nothing(
    directory: Path, resolved: Resolve, quiet: Display, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECONDS", "0")
    (directory / "slow.py").write_text(SLOW.replace('"FAILS"', '"FAILS_LATER"'))
    target = ("function=python", "function.target=slow:f", "function.point=slow:point")
    job = resolved("op=jacobian", "strategy=forward-loop", "verify='off'", *target)
    monkeypatch.setattr(
        "jobs.execution.preparation.prepare_check", _failing_from_now_on(monkeypatch)
    )
    with pytest.raises(JobError, match=r"(?s)ValueError: .*as it was asked to.*slow.py"):
        execute(job, quiet)
    assert list(directory.glob("runs/**/*.h5*")) == []
    monkeypatch.delenv("FAILS_LATER")
    assert execute(job, quiet) == job.paths.result


def _failing_from_now_on(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """The check is prepared last, before the first block."""
    from jobs.verification.selection import prepare_check

    def prepare(*arguments: object) -> object:
        check = prepare_check(*arguments)  # pyright: ignore[reportArgumentType]
        if "FAILED_ONCE" not in os.environ:
            monkeypatch.setenv("FAILED_ONCE", "1")
            monkeypatch.setenv("FAILS_LATER", "1")
        return check

    return prepare


@pytest.mark.parametrize("name", ["result.h5", "result.h5.part"])
@pytest.mark.parametrize("content", ["of another job", "not an HDF5 file", "empty"])
def test_a_file_of_another_job_is_refused_and_untouched(
    content: str, name: str, resolved: Resolve, quiet: Display
) -> None:
    job, other = resolved(*SMALL), resolved(*SMALL, "seed=1")
    path = job.paths.directory / name
    path.parent.mkdir(parents=True)
    if content == "of another job":
        path.write_bytes(execute(other, quiet).read_bytes())
    else:
        path.write_text("" if content == "empty" else "something of the user's")
    before = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(JobError, match=str(path)):
        execute(job, quiet)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_full_disk_is_reported_before_the_start(
    resolved: Resolve, quiet: Display, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    free = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    with pytest.raises(JobError, match=r"needs 1.15 kB .*are free; another place"):
        execute(resolved(*SMALL), quiet)
    assert list(directory.glob("runs/**/*.h5*")) == []


def test_a_full_disk_is_reported_as_one_and_not_as_a_failure_of_the_function(
    resolved: Callable[..., Job], quiet: Display, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = resolved("op=jacobian", "strategy=vectorize", "function=mlp", "function.n=8")

    def full(*block: object) -> None:
        raise ResultError("the disk is full")

    monkeypatch.setattr("outputs.ResultWriter.write", full)
    with pytest.raises(JobError, match=r"\Athe disk is full\Z"):
        execute(job, quiet)


def test_a_closed_pipe_ends_the_job_and_leaves_it_resumable(directory: Path) -> None:
    options = ["op=jacobian", "strategy=vectorize", "function=brusselator", "function.n=8"]
    command = [sys.executable, "-m", "jobs.run", *options, "chunk_size=1"]
    with WarmPopen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stderr is not None
        first.stdout.close()
        errors = first.stderr.read()
    assert first.returncode == 141, errors
    assert "Traceback" not in errors
    again = run_warm(command)
    assert again.returncode == 0, again.stderr


@pytest.mark.usefixtures("in_order")
def test_a_block_that_was_damaged_on_the_disk_is_named_and_computed_again(
    resolved: Resolve, quiet: Display, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = resolved(*SMALL, "chunk_size=3")
    written: list[int] = []
    write = ResultWriter.write

    def write_two(self: ResultWriter, start: int, stop: int, values: np.ndarray) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(start)
        write(self, start, stop, values)

    monkeypatch.setattr("outputs._writing.background._BYTES_AT_ONCE", 1)
    monkeypatch.setattr(ResultWriter, "write", write_two)
    with pytest.raises(KeyboardInterrupt):
        execute(job, quiet)
    monkeypatch.undo()
    part = part_path(job.paths.result)
    with h5py.File(part, "r") as file:
        matrix = file["hessian"]
        assert isinstance(matrix, h5py.Dataset)
        offset = matrix.id.get_offset() + 4 * matrix.shape[1] * 8 + 11
    content = bytearray(part.read_bytes())
    content[offset] ^= 1
    part.write_bytes(content)
    with open_result(execute(job, quiet)) as result:
        assert (
            "note: rows 3 to 6 were damaged on the disk and are computed again" in said.getvalue()
        )
        assert any("3 to 6 were damaged" in each for each in result.execution["fallbacks"])
        assert result.execution["lines_resumed"] == 3
        assert verify_result(result.path).ok
