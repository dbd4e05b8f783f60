"""Scenarios of jobs on a cluster, each from its launch to its results.

They run concurrently, because most of their time is SLURM's: a job that is queued again waits some
seconds. The function of the jobs waits at a gate, after some blocks are written, until the scenario
opens it, so that nothing depends on the speed of the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from box import SlurmBox

from outputs import ResultError, open_result

LINES = 24
FUNCTION = f"""
import os, sys, time
from pathlib import Path
import torch

def note():
    env = os.environ
    facts = [os.getpid(), env.get("SLURM_RESTART_COUNT", "0"), env["SLURMD_NODENAME"],
             env.get("CUDA_VISIBLE_DEVICES") or "none"]
    with open("notes-" + env["SLURM_JOB_ID"], "a") as file:
        file.write(" ".join(map(str, facts)) + "\\n")

def wait_at_gate():
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    def may_go():
        return any(Path(f"go-{{fewer}}").exists() for fewer in range(restarts + 1))
    # Blocks are written shortly after they are computed.
    while not may_go() and not first < changed() < time.time() - 0.5:
        time.sleep(0.02)
    gate = Path(f"gate-{{restarts}}")
    gate.write_text(f"{{os.getpid()}} {{os.environ['SLURMD_NODENAME']}}")
    while not may_go():
        time.sleep(0.02)

def changed():
    return max((part.stat().st_mtime for part in Path().glob("runs/**/*.part")), default=0)

def computes_a_block():
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_name != "compute_block":
        frame = frame.f_back
    return frame is not None

counted = [0]
first = 0

def f(x):
    note()
    # Each block is one column and one evaluation; planning evaluates as well.
    global first
    if computes_a_block():
        counted[0] += 1
        first = first or time.time()
        if counted[0] > 6:
            wait_at_gate()
    return torch.outer(x, x).reshape(-1)

def one(x): return f(x)
def two(x): return f(x)
def three(x): return f(x)
def failing(x):
    if not Path("repaired").exists():
        raise ValueError("not yet repaired")
    return torch.outer(x, x).reshape(-1)

def point(): return torch.arange({LINES}.0) + 1
"""
JOB = (
    *("op=jacobian", "strategy=forward-loop", "chunk_size=1", "function=python"),
    *("function.target=slow:f", "function.point=slow:point"),
    # The gate counts evaluations, and waits for blocks.
    "verify.differences=false",
)
# The same from Python: the function is an object, which lives in the script alone.
CALL = """
import sys
import slow
import jobs

def scaled(factor):
    return lambda x: factor * slow.f(x)

settings = dict(gpus_per_node=0, cpus_per_task=1, timeout_min=30, signal_delay_s=2)
run = jobs.submit(
    *("jacobian", scaled(2.0), slow.point()), cluster="slurm", shards=2, settings=settings,
    strategy="forward-loop", chunk_size=1, verify={"differences": False}, name="call"
)
print(run)
"""
FIND = """
import jobs

(run,) = jobs.find("runs")
with run.wait().result() as result:
    print(result.path)
"""
# One thread per job, because several jobs share the cores of one machine.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
# For a loaded machine; a successful step takes two minutes at most.
SECONDS_AT_MOST = 900


@dataclass
class Ended:
    """How a command ended."""

    code: int
    errors: str


class Scenario:
    """A directory with a function, and the jobs started from it."""

    def __init__(self, box: SlurmBox, directory: Path) -> None:
        self.box = box
        self.directory = directory
        directory.mkdir()
        (directory / "slow.py").write_text(FUNCTION)

    def launch(self, *options: str, partition: str = "main") -> subprocess.Popen[str]:
        """Start a sweep on the cluster."""
        launcher = {
            "partition": partition,
            "cpus_per_task": 1,
            "gpus_per_node": 0,
            "timeout_min": 30,
            "signal_delay_s": 2,
        }
        settings = [f"hydra.launcher.{name}={value}" for name, value in launcher.items()]
        command = [sys.executable, "-m", "jobs.run", "--multirun", "cluster=slurm"]
        return subprocess.Popen(
            [*command, *JOB, *settings, *options],
            cwd=self.directory,
            env={**self.box.environment, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A shell makes its background processes ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def run_here(self, *options: str) -> Ended:
        """Run jobs in a process on this machine, without the cluster."""
        flags = sum(option.startswith("--") for option in options)
        done = subprocess.run(
            # Flags precede overrides.
            [sys.executable, "-m", "jobs.run", *options[:flags], *JOB, *options[flags:]],
            cwd=self.directory,
            env={**ENVIRONMENT, "SLURMD_NODENAME": "none", "SLURM_JOB_ID": "none"},
            capture_output=True,
            text=True,
            timeout=SECONDS_AT_MOST,
        )
        return Ended(done.returncode, done.stdout + done.stderr)

    def run_script(self, code: str) -> Ended:
        """Run a program of Python on this machine, which may submit jobs."""
        (self.directory / "script.py").write_text(code)
        done = subprocess.run(
            [sys.executable, "script.py"],
            cwd=self.directory,
            env={**self.box.environment, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=SECONDS_AT_MOST,
        )
        return Ended(done.returncode, done.stdout + done.stderr)

    def open_gate(self, restarts: int = 0) -> None:
        """Open the gate for jobs that have been queued again at least this often."""
        (self.directory / f"go-{restarts}").touch()

    def notes(self) -> list[list[str]]:
        """Return the notes of all evaluations: process, restarts, node and devices."""
        files = sorted(self.directory.glob("notes-*"))
        return [line.split() for file in files for line in file.read_text().splitlines()]

    def wait_until_computing(self, restarts: int = 0) -> tuple[int, str]:
        """Wait until a job is at its gate, and return its process and node."""
        gate = self.directory / f"gate-{restarts}"
        wait(lambda: gate.exists() and gate.read_text(), f"{self.directory.name}: no job computes")
        pid, node = gate.read_text().split()
        return int(pid), node

    def job(self) -> str:
        """Return the number of the only running job."""
        names = [file.name for file in self.directory.glob("notes-[0-9]*")]
        return sorted(names)[-1].removeprefix("notes-")

    def results(self) -> list[Path]:
        """Return the paths of the finished results."""
        return sorted(self.directory.glob("runs/*/result.h5"))

    def parts(self) -> list[Path]:
        """Return the paths of the unfinished results."""
        return sorted(self.directory.glob("runs/**/*.part"))


def wait(happened: Callable[[], object], otherwise: str) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: It does not hold within the time limit.
    """
    deadline = time.monotonic() + SECONDS_AT_MOST
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.05)


def ended(launcher: subprocess.Popen[str]) -> Ended:
    """Wait until a launcher has ended, and return how."""
    _, errors = launcher.communicate(timeout=SECONDS_AT_MOST)
    return Ended(launcher.returncode, errors)


@contextlib.contextmanager
def launched(
    scenario: Scenario, *options: str, partition: str = "main"
) -> Iterator[subprocess.Popen[str]]:
    """Run a launcher, which is killed at the end of the body."""
    launcher = scenario.launch(*options, partition=partition)
    with launcher:
        try:
            yield launcher
        finally:
            launcher.kill()


def array_with_a_failure(scenario: Scenario) -> tuple[Ended, Ended]:
    """Run four jobs at once, of which one fails, then the same sweep without the cluster."""
    targets = "function.target=slow:one,slow:two,slow:failing,slow:three"
    with launched(scenario, targets, "hydra.launcher.gpus_per_node=1") as launcher:
        # All run at the same time: none continues before three of them compute.
        wait(lambda: len({note[0] for note in scenario.notes() if note}) == 3, "not three jobs")
        scenario.open_gate()
        first = ended(launcher)
    (scenario.directory / "repaired").touch()
    return first, scenario.run_here("--multirun", targets)


def requeue_by_signal(scenario: Scenario) -> Ended:
    """Send the signal that SLURM sends before a time limit."""
    with launched(scenario) as launcher:
        scenario.wait_until_computing()
        scenario.box.ask("scancel", "--signal=USR2", scenario.job())
        scenario.open_gate(1)
        return ended(launcher)


def preemption(scenario: Scenario) -> Ended:
    """Let a job of a higher partition take the node."""
    with launched(scenario, partition="low") as launcher:
        scenario.wait_until_computing()
        scenario.box.ask("sbatch", "-p", "high", "--exclusive", "-o", "/dev/null", "--wrap", "true")
        scenario.open_gate(1)
        return ended(launcher)


def killed(scenario: Scenario) -> tuple[Ended, list[Path], Ended]:
    """Kill the process of a job, then run the same command again."""
    with launched(scenario) as launcher:
        pid, _ = scenario.wait_until_computing()
        os.kill(pid, signal.SIGKILL)
        first = ended(launcher)
    unfinished = scenario.parts()
    scenario.open_gate()
    with launched(scenario) as launcher:
        return first, unfinished, ended(launcher)


def crashed_node(scenario: Scenario) -> Ended:
    """Kill a node with all its processes."""
    with launched(scenario, partition="crash") as launcher:
        pid, node = scenario.wait_until_computing()
        scenario.box.crash(node, pid)
        scenario.open_gate(1)
        first = ended(launcher)
    wait(scenario.results, "the job did not continue on another node")
    return first


def interrupted_launcher(scenario: Scenario) -> Ended:
    """Send Ctrl-C to the launcher while its job computes."""
    with launched(scenario) as launcher:
        scenario.wait_until_computing()
        launcher.send_signal(signal.SIGINT)
        first = ended(launcher)
    scenario.open_gate()
    wait(scenario.results, "the job did not continue")
    return first


def shards_over_nodes(scenario: Scenario) -> Ended:
    """Compute one matrix in eight parts, of which each node takes four at a time."""
    scenario.open_gate()
    with launched(scenario, "shards=8", "shard=range(8)", "hydra.launcher.gpus_per_node=1") as it:
        return ended(it)


def submitted_from_python(scenario: Scenario) -> tuple[list[Ended], list[Ended]]:
    """Signal one of two tasks of a call and cancel the other, then make the same call again.

    Returns:
        How the first calls ended, and how the programs ended that looked for their result.
    """
    calls = [scenario.run_script(CALL)]
    (record,) = scenario.directory.glob("runs/*/submission.json")
    first, second = json.loads(record.read_text())["jobs"]
    wait(
        lambda: [rows_of(part) > 0 for part in scenario.parts()] == [True] * 2, "no shard has rows"
    )
    # The tasks are there already: nothing is submitted.
    calls.append(scenario.run_script(CALL))
    scenario.box.ask("scancel", second)
    scenario.box.ask("scancel", "--signal=USR2", first)
    scenario.open_gate(1)
    seen = [scenario.run_script(FIND)]
    scenario.open_gate()
    calls.append(scenario.run_script(CALL))
    return calls, [*seen, scenario.run_script(FIND)]


def rows_of(part: Path) -> int:
    """Return the number of lines that an unfinished result holds."""
    try:
        with open_result(part.with_suffix(""), allow_partial=True) as result:
            return int(result.mask.sum())
    except ResultError:
        return 0


def three_signals(scenario: Scenario) -> Ended:
    """Send a job the signal of the time limit three times."""
    # If the limit is below ten minutes, submitit takes any signal for the end; SLURM itself sends
    # none that early.
    with launched(scenario, "hydra.launcher.timeout_min=10") as launcher:
        for restarts in range(3):
            scenario.wait_until_computing(restarts)
            scenario.box.ask("scancel", "--signal=USR2", scenario.job())
        scenario.open_gate(3)
        return ended(launcher)


def time_limit(scenario: Scenario) -> Ended:
    """Run a job that exceeds a limit of one minute, so that SLURM signals it at least three times.

    Twice a minute SLURM signals jobs that reach their limit within the delay plus half a minute:
    here 10 to 40 s after the start, when the job already handles signals. The start for which the
    gate is open may be signalled too.
    """
    limit = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=20")
    with launched(scenario, *limit) as launcher:
        scenario.open_gate(3)
        return ended(launcher)
