"""Names: given in one step, never to another file's place, and scratch ones never stay."""

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from outputs import (
    ResultError,
    ResultExistsError,
    claimed_directory,
    remove_orphans,
    scratch_file,
    scratch_for,
)
from outputs._storage import files
from outputs._storage.files import parsed, publish, translated
from outputs._writing.directories import shared_directory


def fails(*arguments: object) -> None:
    raise OSError(errno.EPERM, "no hard links")


@pytest.mark.parametrize("system", ["renameat2", "hard links", "neither"])
def test_a_name_is_given_once(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if system == "renameat2" and files._renameat2 is None:
        pytest.skip("this system has no renameat2")
    if system != "renameat2":
        monkeypatch.setattr(files, "_renameat2", None)
    if system == "neither":
        monkeypatch.setattr(os, "link", fails)
    source, other, target = (tmp_path / name for name in ("source", "other", "target"))
    source.write_text("first")
    other.write_text("second")
    publish(source, target)
    with pytest.raises(ResultExistsError, match="target already exists"):
        publish(other, target)
    assert target.read_text() == "first"
    assert other.read_text() == "second"
    assert not source.exists()


def test_a_file_system_that_cannot_refuse_to_replace_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_renameat2", lambda *arguments: -1)
    monkeypatch.setattr("ctypes.get_errno", lambda: errno.EINVAL)
    source = tmp_path / "source"
    source.write_text("first")
    publish(source, tmp_path / "target")
    monkeypatch.setattr("ctypes.get_errno", lambda: errno.EROFS)
    with pytest.raises(OSError, match="Read-only"):
        publish(tmp_path / "target", tmp_path / "third")


@pytest.mark.parametrize("is_directory", [False, True])
def test_scratch_files_do_not_stay(is_directory: bool, tmp_path: Path) -> None:
    def interrupted() -> None:
        with scratch_file(tmp_path / "f") as scratch:
            if is_directory:
                (scratch / "inner").mkdir(parents=True)
            else:
                scratch.touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_command_removes_what_killed_ones_left_of_its_file_only(tmp_path: Path) -> None:
    names = ("f.01234567.new", "g.01234567.new", "f.new", "ff.01234567.new", "f")
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "f.89abcdef.new").mkdir()
    with scratch_for(tmp_path / "f") as scratch:
        scratch.touch()
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {*names[1:], scratch.name}
        # Another command shares the directory, and does not remove what this one makes.
        with scratch_for(tmp_path / "f"):
            assert scratch.exists()
    with claimed_directory(tmp_path):
        remove_orphans(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"f.new", "f"}


def test_what_is_made_where_a_job_computes_is_not_refused(tmp_path: Path) -> None:
    with claimed_directory(tmp_path), scratch_for(tmp_path / "f") as scratch:
        scratch.touch()
    assert list(tmp_path.iterdir()) == []


def test_a_shared_directory_cleans_a_finished_file(tmp_path: Path) -> None:
    for name in ("f", "f.part", "f.part.owner", "g.part"):
        (tmp_path / name).touch()
    with shared_directory(tmp_path / "f"):
        assert {path.name for path in tmp_path.iterdir()} == {"f", "g.part"}


@pytest.mark.parametrize("converting", [parsed, translated])
def test_what_python_makes_of_an_interruption_in_a_call_of_c_is_one(
    converting: Callable[[Path], AbstractContextManager[None]], tmp_path: Path
) -> None:
    asked = KeyboardInterrupt(2)
    with pytest.raises(KeyboardInterrupt) as found, converting(tmp_path):
        raise SystemError("seek returned a result with an exception set") from asked
    assert found.value is asked
    with pytest.raises((SystemError, ResultError), match="bad argument"), converting(tmp_path):
        raise SystemError("bad argument to internal function")
