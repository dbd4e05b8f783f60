"""Let one process at a time compute in the directory of a run, and clean it before."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from jobs.paths import COLOURING, PRODUCTS, RESULT, STATUS
from jobs.records.status_file import JobStatus
from outputs import BeingWrittenError, claimed_directory, remove_orphans

# A process that has just begun has not yet written its status, and a cleaning one never does.
_SECONDS_UNTIL_A_STATUS = 2.0
_SECONDS_BETWEEN_ATTEMPTS = 0.1


@contextmanager
def computing_in(directory: Path) -> Iterator[None]:
    """Hold the directory of a run or of a shard while the body computes its result.

    Args:
        directory: The directory; it is created if necessary.

    Raises:
        BeingWrittenError: Another process computes this job; the message names it.
        OSError: The directory cannot be created or opened.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        if _wait_for(directory, held):
            remove_leftovers(directory)
        yield


def tidy(directory: Path) -> list[Path]:
    """Remove leftovers from a directory, unless a process computes there or it is read-only.

    Returns:
        What was removed.
    """
    with suppress(BeingWrittenError, OSError), claimed_directory(directory) as is_locked:
        if is_locked:
            return remove_leftovers(directory)
    return []


def tidy_below(runs: Path) -> list[Path]:
    """Remove leftovers from all runs below a directory, and return what was removed.

    Only directories with a status or a result are of runs.
    """
    names = (STATUS, f"{STATUS}.*", f"{RESULT}*", "replacement.h5*")
    found = {file.parent for name in names for file in runs.rglob(name)}
    return [path for directory in sorted(found) if directory.is_dir() for path in tidy(directory)]


def remove_leftovers(directory: Path) -> list[Path]:
    """Remove what killed processes have left in a directory that this process holds.

    Returns:
        What was removed.
    """
    removed = remove_orphans(directory)
    found: list[Path] = []
    if (directory / RESULT).is_file():
        # What a sparse result was assembled from.
        found += [directory / COLOURING, *directory.glob(f"{PRODUCTS}*")]
    return removed + [path for path in found if path.exists() and _is_removed(path)]


def _is_removed(path: Path) -> bool:
    try:
        if not path.is_dir():
            path.unlink()
            return True
        with ExitStack() as held:
            for each in (path, *(p for p in path.rglob("*") if p.is_dir())):
                held.enter_context(claimed_directory(each))
            shutil.rmtree(path)
    except (BeingWrittenError, OSError):
        return False
    return True


def _wait_for(directory: Path, held: ExitStack) -> bool:
    """Enter the lock; return whether the file system has one."""
    limit = time.monotonic() + _SECONDS_UNTIL_A_STATUS
    while True:
        try:
            return held.enter_context(claimed_directory(directory))
        except BeingWrittenError:
            status = JobStatus.read(directory / STATUS)
            is_known = status.state_now() in ("planned", "running")
            if not is_known and time.monotonic() < limit:
                time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
                continue
        who = f"process {status.pid} on {status.host}" if is_known else "another process"
        raise BeingWrittenError(
            f"this job is being computed by {who}, in {directory}; python -m jobs.status shows "
            "how far it is, and the same command continues it should that process end"
        )
