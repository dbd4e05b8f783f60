"""Find earlier runs, watch them, and open their results: `jobs.find` and `jobs.report`."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.calls.opening import opened
from jobs.calls.submitted import SUBMISSION, Submission, Task
from jobs.errors import JobError
from jobs.paths import PRODUCTS, RESULT, STATUS
from jobs.records.status_file import ENDED, JobStatus
from jobs.reporting.summary import JobSummary, summarise, summary_of
from outputs import Result, SparseResult, merge_shards

_SECONDS_BETWEEN_LOOKS = 1.0


class Run:
    """A job that this or another process computes, has computed, or waits to compute.

    Everything is read from its directory, so that it can be found again after a restart.

    Attributes:
        directory: The directory of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def state(self) -> str:
        """The state of the job.

        ``queued``, ``planned``, ``running``, ``finished``, ``failed``, ``killed``, ``interrupted``,
        ``silent`` or ``unreadable``. Of several shards that of the least advanced one, and
        ``failed`` or ``killed`` if one of them is.
        """
        if (self.directory / RESULT).exists():
            return "finished"
        states = [each["state"] for each in self.status()]
        order = ("failed", "killed", "unreadable", "queued", "interrupted", "silent", "planned")
        return next((each for each in (*order, "running") if each in states), "finished")

    @property
    def has_ended(self) -> bool:
        """Whether no task computes or waits to compute."""
        return all(each["state"] in ENDED for each in self.status())

    @property
    def summary(self) -> JobSummary:
        """What a report says of the job: its operation, function, figures and verification."""
        return summary_of(self.directory, self.directory.parent)

    def status(self) -> list[dict[str, Any]]:
        """Return how far each task is: its state, what is done, where, and why it failed.

        Returns:
            A dictionary for each shard, or for the whole matrix: ``task``, ``state``, ``done`` and
            ``lines`` (rows or columns), ``seconds_left``, ``host`` and ``message``.
        """
        return [_status(each) for each in self._tasks()]

    def wait(self, timeout: float | None = None) -> Run:
        """Wait until the job has ended; return this object.

        Args:
            timeout: The longest time to wait, in seconds; None waits without a limit.

        Raises:
            TimeoutError: The job has not ended.
        """
        limit = None if timeout is None else time.monotonic() + timeout
        while not self.has_ended:
            if limit is not None and time.monotonic() > limit:
                raise TimeoutError(f"{self.directory} is {self.state} after {timeout} s")
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return self

    def result(self, timeout: float | None = None) -> Result | SparseResult:
        """Wait for the job and open its result; shards are merged and verified first.

        Args:
            timeout: The longest time to wait, in seconds.

        Raises:
            JobError: A task has failed; the message says which and why. Or the result is
                contradicted, or not verified although ``verify="require"`` was asked for.
            ResultError: The shards cannot be merged, or the file is damaged.
            TimeoutError: The job has not ended.
        """
        path = self.directory / RESULT
        if not path.exists():
            self.wait(timeout)
            for each in self.status():
                if each["state"] != "finished":
                    why = f": {each['message']}" if each["message"] else ""
                    raise JobError(
                        f"{self.directory}, {each['task']} is {each['state']} (the same call "
                        f"continues what is missing){why}"
                    )
            if not path.exists():
                merge_shards([each.directory for each in self._tasks()], path)
        return opened(path)

    def _tasks(self) -> list[Task]:
        submission = Submission.read(self.directory)
        if submission is not None:
            return submission.tasks()
        shards = sorted(self.directory.glob("shard-*-of-*"))
        return [Task(each, each.name) for each in shards] or [Task(self.directory)]

    def __repr__(self) -> str:
        counted = Counter(each["state"] for each in self.status())
        tasks = ", ".join(f"{count} {state}" for state, count in counted.items())
        return (
            f"<Run, {self.state}{f' ({tasks})' if counted.total() > 1 else ''}: {self.directory}>"
        )


def find(runs: str | os.PathLike[str] = "runs") -> list[Run]:
    """Find the runs below a directory, in order of their names.

    Args:
        runs: The directory.
    """
    names = (STATUS, RESULT, SUBMISSION)
    found = {_run_of(path.parent) for name in names for path in Path(runs).rglob(name)}
    return [Run(each.absolute()) for each in sorted(found)]


def report(runs: str | os.PathLike[str] = "runs") -> Any:
    """Return the figures of the jobs below a directory, those of ``python -m jobs.report``.

    Args:
        runs: The directory.

    Returns:
        A pandas.DataFrame with a row per job; where pandas is not installed a list of dictionaries.
    """
    rows = [asdict(each) for each in summarise(Path(runs))]
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(rows)


def _run_of(directory: Path) -> Path:
    """Return the directory of the run that a directory with a status or result is a part of."""
    is_part = directory.name.startswith(("shard-", PRODUCTS))
    return _run_of(directory.parent) if is_part else directory


def _status(task: Task) -> dict[str, Any]:
    known = task.directory / STATUS
    status = JobStatus.read(known) if known.exists() else None
    state, message = task.state(status)
    return {
        "task": task.name or "the job",
        "state": state,
        "done": status.lines_done if status else 0,
        "lines": status.lines if status else None,
        "seconds_left": status.seconds_left if status and state == "running" else None,
        "host": status.host if status else "",
        "message": message,
    }
