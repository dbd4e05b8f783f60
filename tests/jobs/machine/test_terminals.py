"""The command under a real terminal, and without one."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outputs import open_result
from tests.support.processes import wait_for

ASKING = """
import os, time
import torch

def asking(x):
    if not os.path.exists("answered"):
        answer = input("how much? ")
        open("answered", "w").write(answer)
    return x * int(open("answered").read())

def slow(x):
    time.sleep(0.05)
    return x * 3

def point(): return torch.ones(40, dtype=torch.float64)
"""
OPTIONS = (
    "op=jacobian strategy=forward-loop chunk_size=2 verify=off function=python "
    "function.point=own:point"
)


class Terminal:
    """A shell in a session of its own, with a terminal that a test types into."""

    def __init__(self, script: str, directory: Path) -> None:
        self.process, self._master = pty.fork()
        if not self.process:
            os.chdir(directory)
            os.execvp("bash", ["bash", "-c", script])
        os.set_blocking(self._master, False)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def has_shown(self, text: str) -> bool:
        self._read()
        return text in self.seen

    def close(self) -> None:
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def end(self) -> int:
        """Wait for the end of the shell, and return its exit code."""
        limit = time.monotonic() + 100
        while time.monotonic() < limit:
            self._read()
            ended, status = os.waitpid(self.process, os.WNOHANG)
            if ended:
                self._read()
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.05)
        raise AssertionError(self.seen)

    def _read(self) -> None:
        try:
            while self._master >= 0 and (found := os.read(self._master, 65536)):
                self.seen += found.decode(errors="replace")
        except (BlockingIOError, OSError):
            return


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[[str], Terminal]]:
    (tmp_path / "own.py").write_text(ASKING)
    opened: list[Terminal] = []

    def start(script: str) -> Terminal:
        opened.append(Terminal(script, tmp_path))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def command(function: str) -> str:
    return f"{sys.executable} -m jobs.run {OPTIONS} function.target=own:{function}"


def status(directory: Path) -> str:
    return next(
        (json.loads(p.read_bytes())["state"] for p in directory.glob("runs/*/status.json")), ""
    )


def test_a_function_may_ask(terminal: Callable[[str], Terminal], tmp_path: Path) -> None:
    shell = terminal(f"set -m; stty tostop; {command('asking')}")
    wait_for(lambda: shell.has_shown("how much? "))
    shell.type("7\n")
    assert shell.end() == 0, shell.seen
    (path,) = tmp_path.glob("runs/*/result.h5")
    with open_result(path) as result:
        assert result[3, 3] == 7


def test_ctrl_c_ends_the_job_once(terminal: Callable[[str], Terminal], tmp_path: Path) -> None:
    shell = terminal(command("slow"))
    wait_for(lambda: bool(list(tmp_path.glob("runs/*/*.part"))))
    shell.type("\x03")
    assert shell.end() == 130, shell.seen
    assert shell.seen.count("interrupted; what was computed is kept") == 1
    assert "Traceback" not in shell.seen
    assert status(tmp_path) == "interrupted"


def test_ctrl_z_stops_the_job_and_fg_continues_it(
    terminal: Callable[[str], Terminal], tmp_path: Path
) -> None:
    shell = terminal(f"set -m; {command('slow')}; echo stopped $?; read; fg; echo ended $?")
    wait_for(lambda: bool(list(tmp_path.glob("runs/*/*.part"))))
    shell.type("\x1a")
    wait_for(lambda: shell.has_shown("stopped 148"))
    pid = json.loads(next(tmp_path.glob("runs/*/status.json")).read_bytes())["pid"]
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state == "T"
    shell.type("\n")
    shell.end()
    assert "ended 0" in shell.seen
    assert status(tmp_path) == "finished"


@pytest.mark.parametrize("way", ["in the foreground", "disowned"])
def test_a_job_outlives_its_terminal(
    way: str, terminal: Callable[[str], Terminal], tmp_path: Path
) -> None:
    background = "set -m; {} & disown; read"
    shell = terminal((background if way == "disowned" else "{}").format(command("slow")))
    wait_for(lambda: bool(list(tmp_path.glob("runs/*/*.part"))))
    shell.close()
    if way == "disowned":
        os.kill(shell.process, signal.SIGKILL)
    wait_for(lambda: status(tmp_path) == "finished")
    shell.end()
    (path,) = tmp_path.glob("runs/*/result.h5")
    with open_result(path) as result:
        assert result[3, 3] == 3


def test_closed_streams_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(ASKING)
    line = f"exec {command('slow')} <&- >&- 2>&-"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, timeout=100)
    assert done.returncode == 0
    (path,) = tmp_path.glob("runs/*/result.h5")
    with open_result(path) as result:
        assert result[3, 3] == 3
    assert (path.parent / "job.log").exists()


def test_a_background_job_reads_no_terminal(terminal: Callable[[str], Terminal]) -> None:
    """As for any program: it stops until it is brought to the foreground."""
    shell = terminal(f"set -m; {command('asking')} & read; fg; echo ended $?")
    wait_for(lambda: shell.has_shown("how much? "))
    time.sleep(0.5)
    shell.type("\n")
    time.sleep(0.5)
    shell.type("5\n")
    shell.end()
    assert "ended 0" in shell.seen
