"""What was begun is not continued by another version of the function or of its data."""

import io
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.errors import JobError
from jobs.execution.execute import execute
from jobs.job import Job
from jobs.machine.activity import Activity, Death
from jobs.reporting.terminal import Display
from outputs import open_result, open_sparse_result, part_path, verify_result
from tests.jobs.support.interruption import interrupted_after
from tests.support.processes import committed, start_job, wait_for
from tests.support.warm_interpreter import run_warm

# Runs are interrupted at one of their lines.
pytestmark = pytest.mark.usefixtures("in_order")

Resolve = Callable[..., Job]

LINES = 60
# What the function loads by itself, beside the module that it imports, is not in its fingerprint.
FUNCTION = """
import os, pathlib, time
import torch
import shape

def data():
    return float(pathlib.Path("data.txt").read_text())

def f(x):
    time.sleep(float(os.environ.get("SECONDS", 0)))
    return data() * shape.power(x)

def scalar(x): return f(x).sum()

def zero(x): return data() * (x - point())

def point(): return torch.linspace(1, 2, 60, dtype=torch.float64)
"""
DENSE = "import torch\ndef power(x): return torch.outer(x, x).reshape(-1)[::7] ** 2"
OPTIONS = ("function=python", "function.point=own:point", "chunk_size=2")
WAYS = {
    "rows": ("op=jacobian", "strategy=reverse-loop", "function.target=own:f"),
    "columns": ("op=jacobian", "strategy=forward-loop", "function.target=own:f"),
    "hessian": ("op=hessian", "strategy=forward-loop", "function.target=own:scalar"),
    "diagonal": (
        *("op=hessian", "strategy=forward-loop", "function.target=own:scalar"),
        "structure=diagonal",
    ),
    "zero": ("op=jacobian", "strategy=reverse-loop", "function.target=own:zero"),
    "shard": ("op=jacobian", "strategy=reverse-loop", "function.target=own:f", "shard=0/2"),
    "product": ("op=jvp", "strategy=forward-loop", "function.target=own:f", "vectors.count=40"),
    "points": (
        *("op=jacobian", "strategy=reverse-loop", "function.target=own:scalar", "points=leading"),
        *("inputs=numpy", "inputs.path=x.npy", "function.point=null"),
    ),
}


@pytest.fixture
def project(directory: Path) -> Path:
    (directory / "own.py").write_text(FUNCTION)
    (directory / "shape.py").write_text(DENSE)
    (directory / "data.txt").write_text("2")
    np.save("x.npy", np.linspace(1, 2, 200).reshape(40, 5))
    return directory


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch, quiet: Display) -> Callable[..., None]:
    """Run a job until it has written some blocks."""

    def run(job: Job, *, blocks: int = 3, **options: Any) -> None:
        with interrupted_after(blocks, monkeypatch):
            execute(job, quiet, **options)

    return run


@pytest.mark.parametrize(
    ("way", "mode"),
    [
        *((way, "probe") for way in WAYS),
        *(("rows", "sample"), ("columns", "off"), ("points", "off")),
        # Its value is the same, whatever the data are.
        *(("zero", mode) for mode in ("probe", "sample", "off")),
    ],
)
def test_changed_data_are_not_mixed(
    way: str,
    mode: str,
    project: Path,
    resolved: Resolve,
    quiet: Display,
    interrupted: Callable[..., None],
) -> None:
    options = (*OPTIONS, *WAYS[way], f"verify={mode}")
    job = resolved(*options)
    interrupted(job)
    part = part_path(job.paths.result)
    before = part.read_bytes()
    (project / "data.txt").write_text("3")
    message = (
        rf"{part}, begun 20\S+ and with 6 of \d+ (rows|columns) computed, is of another version "
        r"of the function or of the data that it reads: .*; nothing is mixed: restore that "
        r"version, or begin again with overwrite=true"
    )
    with pytest.raises(JobError) as refused:
        execute(resolved(*options), quiet)
    assert re.fullmatch(message, str(refused.value)), refused.value
    assert part.read_bytes() == before
    (project / "data.txt").write_text("2")
    path = execute(resolved(*options), quiet)
    with open_result(path, allow_partial=True) as result:
        assert result.execution["lines_resumed"] == 6


def test_what_holds_no_block_yet_is_begun_again(
    project: Path, resolved: Resolve, quiet: Display, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = resolved(*OPTIONS, *WAYS["rows"])
    with monkeypatch.context() as patched:
        patched.setattr("jobs.execution.dense._compute", _killed)
        patched.setattr("pathlib.Path.unlink", lambda *a, **k: None)
        with pytest.raises(KeyboardInterrupt):
            execute(job, quiet)
    assert part_path(job.paths.result).exists()
    (project / "data.txt").write_text("3")
    assert verify_result(execute(resolved(*OPTIONS, *WAYS["rows"]), quiet)).ok


def _killed(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def kill_begun(directory: Path, *options: str, parts: str = "runs/**/*.part") -> Path:
    """Start a job and kill it when some lines are committed; return its unfinished file."""
    job = start_job(*OPTIONS, *options, SECONDS="0.02")
    wait_for(lambda: committed(directory, parts) > 3, job)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    (part,) = directory.glob(parts)
    return part


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.run", *OPTIONS, *options]
    return run_warm(command)


def test_a_killed_job_and_a_changed_module(project: Path) -> None:
    part = kill_begun(project, *WAYS["rows"])
    (project / "data.txt").write_text("3")
    refused = run(*WAYS["rows"])
    assert refused.returncode == 1, refused.stdout
    assert refused.stderr.startswith(f"error: {part}, begun 20")
    (project / "shape.py").write_text(DENSE.replace("** 2", "** 3"))
    done = run(*WAYS["rows"])
    assert done.returncode == 0, done.stderr
    result = Path(done.stdout.splitlines()[-1])
    assert result.parent != part.parent
    assert verify_result(result).ok
    assert part.exists()


@pytest.mark.parametrize("way", ["rows", "columns", "shard", "points"])
def test_overwriting_begins_with_the_function_of_today(
    way: str,
    project: Path,
    resolved: Resolve,
    quiet: Display,
    said: io.StringIO,
    interrupted: Callable[..., None],
) -> None:
    options = (*OPTIONS, *WAYS[way])

    def entries(path: Path) -> np.ndarray:
        with open_result(path, allow_partial=True) as result:
            return result.stored_matrix[:, :]

    finished = execute(resolved(*options), quiet)
    expected = entries(finished)
    for content in ("3", "4"):  # interrupted twice, by another version each time
        (project / "data.txt").write_text(content)
        interrupted(resolved(*options), overwrite=True)
        assert part_path(finished.with_name("replacement.h5")).exists()
        np.testing.assert_array_equal(entries(finished), expected)
    (project / "data.txt").write_text("5")
    assert execute(resolved(*options), quiet, overwrite=True) == finished
    assert "done already" not in said.getvalue()
    np.testing.assert_allclose(entries(finished), expected * 5 / 2, rtol=1e-12)
    assert {path.name for path in finished.parent.iterdir()} == {"result.h5", "status.json"}


def test_overwriting_discards_what_was_never_finished(
    project: Path, resolved: Resolve, quiet: Display, interrupted: Callable[..., None]
) -> None:
    job = resolved(*OPTIONS, *WAYS["rows"])
    interrupted(job)
    (project / "data.txt").write_text("3")
    with open_result(execute(job, quiet, overwrite=True)) as result:
        assert result.execution["lines_resumed"] == 0
    assert verify_result(job.paths.result).ok


@pytest.mark.parametrize("by", ["SLURM", "the supervisor"])
def test_a_start_that_is_made_again_continues_an_overwrite(
    by: str,
    project: Path,
    resolved: Resolve,
    quiet: Display,
    interrupted: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = resolved(*OPTIONS, *WAYS["rows"])
    execute(job, quiet)
    interrupted(job, overwrite=True)
    if by == "SLURM":
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    else:
        death = Death(Activity(str(job.paths.status), "a block was computed"), "SIGSEGV", False)
        monkeypatch.setattr("jobs.machine.activity._deaths", [death])
    with open_result(execute(job, quiet, overwrite=True)) as result:
        assert result.execution["lines_resumed"] == 6


@pytest.mark.parametrize(
    ("mode", "is_comparable"), [("probe", True), ("off", True), ("off", False)]
)
def test_every_start_is_recorded_with_its_versions(
    mode: str,
    is_comparable: bool,
    project: Path,
    resolved: Resolve,
    quiet: Display,
    said: io.StringIO,
    interrupted: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = resolved(*OPTIONS, *WAYS["rows"], f"verify={mode}")
    interrupted(job)
    interrupted(job, blocks=2)
    monkeypatch.setattr("torch.__version__", "99.0")
    if not is_comparable:
        monkeypatch.setattr("jobs.execution.preparation._earlier_probes", lambda *_: None)
        message = r"other versions \(torch .*, now 99.0\), and no other route gives a product"
        with pytest.raises(JobError, match=message):
            execute(job, quiet)
        return
    with open_result(execute(job, quiet)) as result:
        attempts = result.execution["attempts"]
        lines = result.shape[0]
    assert [each["lines_computed"] for each in attempts] == [6, 4, lines - 10]
    assert [each["versions"]["torch"] == "99.0" for each in attempts] == [False, False, True]
    assert all({"python", "numpy", "torch"} <= set(each["versions"]) for each in attempts)
    assert re.search(r"note: begun under other versions \(torch \S+, now 99.0\)", said.getvalue())


def test_a_finished_job_says_what_identifies_it(
    project: Path, resolved: Resolve, quiet: Display, said: io.StringIO
) -> None:
    job = resolved(*OPTIONS, *WAYS["rows"])
    execute(job, quiet)
    execute(job, quiet)
    assert (
        "the source of 2 modules (own, shape) are the same; data that the function reads by itself "
        "are not compared; overwrite=true computes it again"
    ) in said.getvalue()


SPARSE = {
    "before": ("x ** 2", np.diag(2 * np.linspace(1, 2, LINES))),
    "another value": ("3 * x ** 2", np.diag(6 * np.linspace(1, 2, LINES))),
    "another pattern": (
        "x ** 2 + x.flip(0)",
        np.diag(2 * np.linspace(1, 2, LINES)) + np.eye(LINES)[::-1],
    ),
    "another shape": ("(x ** 2)[:50]", np.diag(2 * np.linspace(1, 2, LINES))[:50]),
}


@pytest.mark.parametrize("stage", ["colouring", "products", "finished products"])
@pytest.mark.parametrize("other", [name for name in SPARSE if name != "before"])
def test_a_sparse_job_recovers(
    stage: str,
    other: str,
    directory: Path,
    resolved: Resolve,
    quiet: Display,
    interrupted: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("numba")
    # No reader of the source can know what the function is.
    (directory / "own.py").write_text(
        "import pathlib, torch\ndef f(x): return eval(pathlib.Path('power.txt').read_text())\n"
        "def point(): return torch.linspace(1, 2, 60, dtype=torch.float64)\n"
    )
    (directory / "power.txt").write_text(SPARSE["before"][0])
    options = (*OPTIONS[:2], "op=jacobian", "function.target=own:f", "sparsity=auto")
    job = resolved(*options, "chunk_size=1")
    place = {
        "colouring": "jobs.execution.sparse.execute_dense",
        "products": "jobs.execution.dense.ResultWriter.finish",
        "finished products": "jobs.sparsity.assembly.assemble",
    }[stage]
    with monkeypatch.context() as patched:
        patched.setattr(place, _killed)
        with pytest.raises(KeyboardInterrupt):
            execute(job, quiet)
    assert job.paths.colouring.exists()
    text, expected = SPARSE[other]
    (directory / "power.txt").write_text(text)
    path = execute(resolved(*options), quiet)
    with open_sparse_result(path) as result:
        np.testing.assert_allclose(result.as_scipy().toarray(), expected, rtol=1e-12)
    assert {each.name for each in path.parent.iterdir()} == {"result.h5", "status.json"}
