"""The commit of the user's code."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.job import Job
from tests.jobs.support.own_functions import FUNCTIONS, of

Resolve = Callable[..., Job]


def test_the_commit_is_that_of_the_users_code(own: Path, resolved: Resolve, quiet) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=n", "-c", "user.email=e@x")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=own, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    from jobs.records.provenance import git_commit

    def found() -> str:
        with git_commit(job) as commit:
            return commit()

    job = resolved(*of("partial"))
    assert found() == ""
    git("init", "-q")
    git("add", "own.py")
    git("commit", "-qm", "first")
    (own / ".git/info/exclude").write_text("__pycache__\n")
    commit = git("rev-parse", "HEAD")
    assert found() == commit
    # Git would note in the index that the file is the same, and lock it meanwhile.
    os.utime(own / "own.py", (1, 1))
    index = (own / ".git/index").read_bytes()
    assert found() == commit
    assert (own / ".git/index").read_bytes() == index
    (own / "own.py").write_text(FUNCTIONS + "\n")
    assert found() == commit + "+"


def test_git_is_not_left_behind(
    own: Path, resolved: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.records.provenance import git_commit

    slow = tmp_path / "bin/git"
    slow.parent.mkdir()
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    slow.chmod(0o755)
    job = resolved(*of("partial"))
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")

    def body() -> None:
        with git_commit(job):
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                time.sleep(0.01)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
