"""What happens to jobs of a cluster, each scenario from its launch to what it left behind.

They run side by side, because most of their time is SLURM's: a job that is queued again waits some
seconds. The function of the jobs waits at a gate, when some blocks are written, until the scenario
lets it go on, so that nothing depends on how fast the machine is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from box import SlurmBox

LINES = 24
FUNCTION = f"""
import os, time
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
    # Blocks are written a moment after they are computed.
    while not may_go() and not first < changed() < time.time() - 0.5:
        time.sleep(0.02)
    gate = Path(f"gate-{{restarts}}")
    gate.write_text(f"{{os.getpid()}} {{os.environ['SLURMD_NODENAME']}}")
    while not may_go():
        time.sleep(0.02)

def changed():
    return max((part.stat().st_mtime for part in Path().glob("runs/**/*.part")), default=0)

counted = [0]
first = 0

def f(x):
    note()
    # A column a block, and an evaluation each, once there is a file to write to.
    global first
    if any(Path().glob("runs/**/*.part")):
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
)
# One thread: several jobs share the cores of one machine.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
# Of a loaded machine; what goes well takes two minutes at most.
PATIENCE = 900


@dataclass
class Ended:
    """How a command ended."""

    code: int
    errors: str


class Scenario:
    """A directory with a function, and what is started from it."""

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
            # A shell lets what it starts in the background ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def run_here(self, *options: str) -> Ended:
        """Run jobs in a process of this machine, without the cluster."""
        flags = sum(option.startswith("--") for option in options)
        done = subprocess.run(
            # Flags come before what is overridden.
            [sys.executable, "-m", "jobs.run", *options[:flags], *JOB, *options[flags:]],
            cwd=self.directory,
            env={**ENVIRONMENT, "SLURMD_NODENAME": "none", "SLURM_JOB_ID": "none"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return Ended(done.returncode, done.stdout + done.stderr)

    def let_go(self, restarts: int = 0) -> None:
        """Let jobs go on that have been queued again at least so often."""
        (self.directory / f"go-{restarts}").touch()

    def notes(self) -> list[list[str]]:
        """What each evaluation noted: process, restarts, node and devices."""
        files = sorted(self.directory.glob("notes-*"))
        return [line.split() for file in files for line in file.read_text().splitlines()]

    def wait_until_computing(self, restarts: int = 0) -> tuple[int, str]:
        """Wait until a job stands at its gate, and return its process and node."""
        gate = self.directory / f"gate-{restarts}"
        wait(lambda: gate.exists() and gate.read_text(), f"{self.directory.name}: no job computes")
        pid, node = gate.read_text().split()
        return int(pid), node

    def job(self) -> str:
        """The number of the only job that is running."""
        names = [file.name for file in self.directory.glob("notes-[0-9]*")]
        return sorted(names)[-1].removeprefix("notes-")

    def results(self) -> list[Path]:
        """The finished results."""
        return sorted(self.directory.glob("runs/*/result.h5"))

    def parts(self) -> list[Path]:
        """The unfinished ones."""
        return sorted(self.directory.glob("runs/**/*.part"))


def wait(happened: Callable[[], object], otherwise: str) -> None:
    """Wait for something.

    Raises:
        TimeoutError: It does not happen.
    """
    deadline = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.05)


def ended(launcher: subprocess.Popen[str]) -> Ended:
    """Wait for the end of a launcher."""
    _, errors = launcher.communicate(timeout=PATIENCE)
    return Ended(launcher.returncode, errors)


@contextlib.contextmanager
def launched(
    scenario: Scenario, *options: str, partition: str = "main"
) -> Iterator[subprocess.Popen[str]]:
    """A launcher that does not outlive the body."""
    launcher = scenario.launch(*options, partition=partition)
    with launcher:
        try:
            yield launcher
        finally:
            launcher.kill()


def array_with_a_failure(scenario: Scenario) -> tuple[Ended, Ended]:
    """Four jobs at once, of which one fails; the same sweep again, without the cluster."""
    targets = "function.target=slow:one,slow:two,slow:failing,slow:three"
    with launched(scenario, targets, "hydra.launcher.gpus_per_node=1") as launcher:
        # All at the same time: none goes on before three of them compute.
        wait(lambda: len({note[0] for note in scenario.notes() if note}) == 3, "not three jobs")
        scenario.let_go()
        first = ended(launcher)
    (scenario.directory / "repaired").touch()
    return first, scenario.run_here("--multirun", targets)


def requeue_by_signal(scenario: Scenario) -> Ended:
    """The signal that SLURM sends before the end of the time, sent by hand."""
    with launched(scenario) as launcher:
        scenario.wait_until_computing()
        scenario.box.ask("scancel", "--signal=USR2", scenario.job())
        scenario.let_go(1)
        return ended(launcher)


def preemption(scenario: Scenario) -> Ended:
    """A job of a higher partition takes the node."""
    with launched(scenario, partition="low") as launcher:
        scenario.wait_until_computing()
        scenario.box.ask("sbatch", "-p", "high", "--exclusive", "-o", "/dev/null", "--wrap", "true")
        scenario.let_go(1)
        return ended(launcher)


def killed(scenario: Scenario) -> tuple[Ended, list[Path], Ended]:
    """A job that SLURM knows is killed; the same command again."""
    with launched(scenario) as launcher:
        pid, _ = scenario.wait_until_computing()
        os.kill(pid, signal.SIGKILL)
        first = ended(launcher)
    unfinished = scenario.parts()
    scenario.let_go()
    with launched(scenario) as launcher:
        return first, unfinished, ended(launcher)


def crashed_node(scenario: Scenario) -> Ended:
    """A node dies with everything on it."""
    with launched(scenario, partition="crash") as launcher:
        pid, node = scenario.wait_until_computing()
        scenario.box.crash(node, pid)
        scenario.let_go(1)
        first = ended(launcher)
    wait(scenario.results, "the job did not go on elsewhere")
    return first


def interrupted_launcher(scenario: Scenario) -> Ended:
    """Ctrl-C where the sweep was started, while its job computes."""
    with launched(scenario) as launcher:
        scenario.wait_until_computing()
        launcher.send_signal(signal.SIGINT)
        first = ended(launcher)
    scenario.let_go()
    wait(scenario.results, "the job did not go on")
    return first


def shards_over_nodes(scenario: Scenario) -> Ended:
    """One matrix in eight parts, of which a node takes four at a time."""
    scenario.let_go()
    with launched(scenario, "shards=8", "shard=range(8)", "hydra.launcher.gpus_per_node=1") as it:
        return ended(it)


def three_signals(scenario: Scenario) -> Ended:
    """A job that is told three times that its time is over."""
    # Of less than ten minutes submitit takes any signal for the end; SLURM sends none that early.
    with launched(scenario, "hydra.launcher.timeout_min=10") as launcher:
        for restarts in range(3):
            scenario.wait_until_computing(restarts)
            scenario.box.ask("scancel", "--signal=USR2", scenario.job())
        scenario.let_go(3)
        return ended(launcher)


def time_limit(scenario: Scenario) -> Ended:
    """A job of which a minute is never enough: it is told before its end, three times at least.

    SLURM looks twice a minute whose end is less than the delay and half a minute away: 10 to 40 s
    after the start here, when the job listens already. The start that may go on may be told too.
    """
    limit = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=20")
    with launched(scenario, *limit) as launcher:
        scenario.let_go(3)
        return ended(launcher)
