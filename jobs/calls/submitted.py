"""What a run directory says of its tasks on a cluster, and what submitit knows of them."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.paths import RESULT, RunPaths
from jobs.records.status_file import JobStatus, is_alive

SUBMISSION = "submission.json"
# Of a task that has completed the file is on its way to this node.
_WAITING = {
    *("PENDING", "REQUEUED", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "UNKNOWN"),
    "COMPLETED",
}
_SECONDS_FOR_AN_ANSWER = 10


@dataclass(frozen=True)
class Task:
    """A task that computes a whole matrix, or a shard of it.

    Attributes:
        directory: Where its result will be.
        name: Its name in messages; empty if it is the whole job.
        cluster: Where it was submitted to; empty if it was not.
        folder: The folder of submitit.
        job: The number of its job there.
        submitted: When: ISO 8601, UTC.
    """

    directory: Path
    name: str = ""
    cluster: str = ""
    folder: str = ""
    job: str = ""
    submitted: str = ""

    def state(self, status: JobStatus | None) -> tuple[str, str]:
        """Return the state of the task, and why it failed.

        Args:
            status: What it last wrote about itself; None if it wrote nothing yet.
        """
        if (self.directory / RESULT).exists():
            return "finished", ""
        # An earlier start of the same job may have left its status.
        is_current = status is not None and status.updated >= self.submitted
        if status is not None and is_current and self.cluster != "slurm":
            return status.state_now(), status.message
        if not self.job:
            return (
                ("unreadable", "there is neither a status nor a result")
                if status is None
                else (
                    status.state_now(),
                    status.message,
                )
            )
        return self._state_of_submitit(status if is_current else None)

    def _state_of_submitit(self, status: JobStatus | None) -> tuple[str, str]:
        import submitit

        kind = submitit.SlurmJob if self.cluster == "slurm" else submitit.LocalJob
        job: Any = kind(self.folder, self.job)
        if job.paths.result_pickle.exists():
            # What submitit writes: "success" and the path, or "error" and the traceback.
            outcome, value = pickle.loads(job.paths.result_pickle.read_bytes())
            return ("finished", "") if outcome == "success" else ("failed", _message(value))
        if self.cluster == "slurm":
            state = str(job.state).split()[0].rstrip("+")
            if state not in _WAITING and not _is_queued(self.job):
                return "failed", f"SLURM says {state}; the output is in {job.paths.stdout}"
        elif _has_ended(int(self.job)):
            return "failed", f"the process has ended; its output is in {job.paths.stdout}"
        if status is not None and status.state_now() in ("planned", "running", "silent"):
            return status.state_now(), ""
        return "queued", ""


def _has_ended(process: int) -> bool:
    # A child that has ended exists until its parent asks.
    with suppress(ChildProcessError):
        os.waitpid(process, os.WNOHANG)
    return not is_alive(process)


def _is_queued(job: str) -> bool:
    """Return whether SLURM will run a job again that was preempted, or whose node has failed."""
    try:
        command = ["squeue", "--noheader", "--jobs", job]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS_FOR_AN_ANSWER
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return bool(done.stdout.strip())


def _message(trace: str) -> str:
    """Return the message of the error at the end of a traceback, in one line."""
    lines = trace.strip().splitlines() or ["it gives no reason"]
    # A message can have further lines, with the frames of the function.
    ours = [each for each in lines if each.startswith("jobs.errors.")]
    return ours[-1].partition(": ")[2] if ours else lines[-1]


@dataclass(frozen=True)
class Submission:
    """The jobs of a cluster that compute a run.

    Attributes:
        cluster: ``slurm``, ``local`` or ``debug``.
        folder: The folder of submitit, in the directory of the run.
        jobs: Their numbers, in the order of the shards.
        shards: The number of shards; None for the whole matrix.
        submitted: When: ISO 8601, UTC.
    """

    cluster: str
    folder: str
    jobs: tuple[str, ...]
    shards: int | None
    submitted: str
    directory: Path = Path()

    @staticmethod
    def now() -> str:
        """Return the time, as status files have it."""
        return datetime.now(UTC).isoformat(timespec="seconds")

    def write(self) -> None:
        """Write the record into the directory of the run."""
        facts = {k: v for k, v in asdict(self).items() if k != "directory"}
        scratch = self.directory / f"{SUBMISSION}.new"
        scratch.write_text(json.dumps(facts, indent=1))
        scratch.replace(self.directory / SUBMISSION)

    @classmethod
    def read(cls, directory: Path) -> Submission | None:
        """Read the record of a run; None if it was not submitted, or the record is damaged."""
        try:
            facts = json.loads((directory / SUBMISSION).read_bytes())
            jobs = tuple(map(str, facts.pop("jobs")))
            return cls(**facts, jobs=jobs, directory=directory)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def tasks(self) -> list[Task]:
        """Return the tasks, in the order of the shards."""
        common = {"cluster": self.cluster, "folder": str(self.directory / self.folder)}
        made = []
        for index, job in enumerate(self.jobs):
            shard = None if self.shards is None else (index, self.shards)
            place = RunPaths.in_run(self.directory, shard).directory
            name = "" if shard is None else f"shard {index}/{self.shards}"
            made.append(Task(place, name, job=job, submitted=self.submitted, **common))
        return made
