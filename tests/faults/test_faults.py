"""A fault of the disk, or a kill, at any system call: the same command then finishes the same file.

The suite makes a few, ``make torture`` makes hundreds (tests/faults/sweep.py).
"""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from outputs import ResultError, ResultWriter, open_result, verify_result
from outputs._storage.files import create_file
from tests.faults.sweep import ROOT, SCENARIOS, Sweep, Trial, compiled, trials
from tests.outputs.conftest import description

SEED = 20
SAMPLE = ("rows", "gzip", "sparse", "overwrite", "merge", "export to netcdf")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    shim = compiled(tmp_path_factory.mktemp("shim"))
    if shim is None:
        pytest.skip("there is no C compiler, or this is not Linux")
    return Sweep(tmp_path_factory.mktemp("sweep"), shim)


@pytest.mark.parametrize("scenario", SAMPLE)
def test_after_a_fault_the_same_command_finishes_the_same_file(sweep: Sweep, scenario: str) -> None:
    for trial in trials(sweep, 1, SEED + list(SCENARIOS).index(scenario), [scenario]):
        assert not sweep.problem(trial), trial


# What faults have found.
@pytest.mark.parametrize(
    ("scenario", "fault", "call"),
    [
        # The record was written, and the next start took the file for a finished, damaged one.
        ("rows", "SIGKILL", "rename"),
        # Under the name of the result there was a second name, that of the unfinished file.
        ("gzip", "SIGKILL", "unlink"),
        ("overwrite", "SIGKILL", "rename"),
        # The products of a sparse matrix were given up for a dense one.
        ("sparse", "EIO", "ftruncate"),
    ],
)
def test_faults_of_before(sweep: Sweep, scenario: str, fault: str, call: str) -> None:
    numbers = [n for n, name in enumerate(sweep.calls(scenario), 1) if name == call]
    trial = Trial(scenario, fault, numbers[-1])
    assert not sweep.problem(trial), trial


def test_the_shim_fails_and_kills(sweep: Sweep) -> None:
    assert sweep.ending(Trial("rows", "SIGKILL", 40))[0] in (-9, 128 + 9)
    full = Trial("rows", "ENOSPC", sweep.calls("rows").index("fallocate") + 1)
    code, output = sweep.ending(full)
    assert code == 1
    assert "the disk or the quota is full" in output


# Prints the message of the package's own error and exits with 1; HDF5's failure was SIGSEGV.
LIMITED = """
import resource, runpy, sys
import numpy as np
from outputs import ResultError, ResultWriter
from tests.outputs.conftest import description

path, kind, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
matrix = np.random.default_rng(0).standard_normal((100, 200))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
if kind in ("mat", "netcdf", "npy", "npz"):
    sys.argv = ["", path, "--to", kind, "-o", f"{path}.{kind}"]
    runpy.run_module("outputs.export", run_name="__main__")
try:
    with ResultWriter.create(path, description(matrix.shape, axis=kind)) as writer:
        writer.write(0, matrix.shape[kind == "columns"], matrix)
        writer.finish({})
except ResultError as error:
    sys.exit(str(error))
"""


def run_limited(path: Path, kind: str, limit: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), kind, str(limit)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("rows", 1), ("rows", 150_000), ("columns", 1000), ("mat", 5000), ("netcdf", 150_000)],
)
def test_files_may_not_be_larger_than_the_limit(kind: str, limit: int, tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    if kind not in ("rows", "columns"):
        run_limited(path, "rows", -1).check_returncode()
    before = sorted(tmp_path.iterdir())
    ended = run_limited(path, kind, limit)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "disk or the quota is full" in ended.stderr or "File too large" in ended.stderr
    assert sorted(tmp_path.iterdir()) == before
    run_limited(path, kind, -1).check_returncode()


@pytest.mark.parametrize("call", ["write", "ftruncate"])
@pytest.mark.parametrize("number", [1, 2, 5, 20])
def test_a_write_of_hdf5_that_fails_is_raised_once_by_closing(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    real = os.pwrite if call == "write" else os.ftruncate
    monkeypatch.setattr(os, real.__name__, failing)
    file = create_file(tmp_path / "f.h5")
    for index in range(20):
        file.create_dataset(f"{index}", data=np.arange(100.0))
        file.flush()
    if calls < number:
        file.close()
        return
    with pytest.raises(OSError, match="No space"):
        file.require_written()
    with pytest.raises(OSError, match="No space"):
        file.close()
    file.close()


def test_a_writer_that_is_not_closed_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from outputs import ResultWriter\n"
        "from tests.outputs.conftest import description\n"
        "writer = ResultWriter.create(sys.argv[1], description())\n"
        "writer.write(0, 12, np.ones((12, 20)))\n"
        "sys.exit(7)\n"
    )
    path = tmp_path / "r.h5"
    command = [sys.executable, "-c", code, str(path)]
    assert subprocess.run(command, cwd=ROOT).returncode == 7
    with ResultWriter.resume(path, "0123456789abcdef") as writer:
        assert writer.missing() == []
        writer.finish({})
    assert verify_result(path).problems == ()


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_finish_that_fails_is_finished_by_the_next_start(
    compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.h5"

    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with (
        ResultWriter.create(path, description(compression=compression)) as writer,
        monkeypatch.context() as patch,
    ):
        writer.write(0, 12, np.ones((12, 20)))
        patch.setattr("outputs._writing.publishing.publish", fail)
        with pytest.raises(ResultError, match="Input/output error"):
            writer.finish({"attempt": 1})
    assert sorted(each.name for each in tmp_path.iterdir()) == ["r.h5.part"]
    with ResultWriter.resume(path, "0123456789abcdef") as writer:
        # A record and a digest that do not fit would be called damage.
        assert verify_result(writer.part).problems == ()
        writer.finish({"attempt": 2})
    with open_result(path) as result:
        assert result.execution["attempt"] == 2
        assert result[:].tolist() == np.ones((12, 20)).tolist()
