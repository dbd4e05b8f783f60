"""What a run directory says of its tasks on a cluster, and what submitit knows of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.functions.tracebacks import one_line
from jobs.paths import RESULT, RunPaths
from jobs.records.status_file import JobStatus

SUBMISSION = "submission.json"
_WAITING = {"PENDING", "REQUEUED", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "UNKNOWN"}


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
            error = job.exception()
            return ("failed", one_line(error)) if error is not None else ("finished", "")
        state = str(job.state).split()[0].rstrip("+") if self.cluster == "slurm" else "UNKNOWN"
        if state not in _WAITING:
            return "failed", f"SLURM says {state}; the output is in {job.paths.stdout}"
        if status is not None and status.state_now() in ("planned", "running", "silent"):
            return status.state_now(), ""
        return "queued", ""


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
