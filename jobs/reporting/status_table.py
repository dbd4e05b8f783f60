"""The table of `python -m jobs.status`, printed once or kept up to date."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobs.records.status_file import ENDED, JobStatus, read_statuses
from jobs.reporting.console import command_console
from jobs.units import duration
from outputs import VerificationState

_SECONDS_BETWEEN_READS = 2.0
_STYLES = {
    "failed": "red",
    "killed": "red",
    "unreadable": "red",
    "silent": "yellow",
}


def print_statuses(directory: Path) -> bool:
    """Print the table of the jobs below a directory; return whether there are any."""
    statuses = read_statuses(directory)
    if statuses:
        command_console().print(_status_table(statuses, directory))
    return bool(statuses)


def watch(directory: Path, console: Console) -> None:
    """Show the table on a terminal until every job has ended."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            statuses = read_statuses(directory)
            live.update(_status_table(statuses, directory), refresh=True)
            if all(status.state_now() in ENDED for status in statuses):
                return
            time.sleep(_SECONDS_BETWEEN_READS)


def _status_table(statuses: Sequence[JobStatus], directory: Path) -> Table:
    """Return a table of one line per job, with the numbers of jobs in each state as its title.

    Args:
        statuses: The jobs.
        directory: The directory that the names of the jobs are relative to.
    """
    counted = Counter(status.state_now() for status in statuses)
    title = ", ".join(f"{count} {state}" for state, count in sorted(counted.items()))
    judged = Counter(map(verification_of, statuses))
    results = ", ".join(f"{judged[state]} {state}" for state in VerificationState if judged[state])
    title = "; results: ".join(filter(None, (title, results)))
    table = Table(title=f"{len(statuses)} jobs: {title}", title_justify="left")
    for heading in ("job", "state", "result", "done", "rate", "left", "device", "host", "message"):
        table.add_column(heading, overflow="fold")
    for status in statuses:
        state = status.state_now()
        cells = _cells(status, directory)
        found = verification_of(status)
        # A job that is finished is no success unless its result is.
        style = found.style if found else _STYLES.get(state, "")
        result = Text(found.value, found.style) if found else Text("")
        table.add_row(Text(cells[0]), Text(state, style), result, *map(Text, cells[1:]))
    return table


def verification_of(status: JobStatus) -> VerificationState | None:
    """Return the state of verification of a finished job; None where its file has none."""
    if status.state != "finished" or status.verification not in list(VerificationState):
        return None
    return VerificationState(status.verification)


def _cells(status: JobStatus, directory: Path) -> tuple[str, ...]:
    done = ""
    if status.lines:
        share = 100 * status.lines_done / status.lines
        done = f"{status.lines_done} of {status.lines} {status.axis} ({share:.0f} %)"
    is_computing = status.state_now() == "running"
    left = status.seconds_left if is_computing else None
    return (
        str(status.directory.relative_to(directory)),
        done,
        f"{status.lines_per_second:.3g}/s" if status.lines_per_second else "",
        "" if left is None else duration(left),
        status.device,
        status.host,
        status.message or _why_not_verified(status),
    )


def _why_not_verified(status: JobStatus) -> str:
    is_verified = verification_of(status) in (None, VerificationState.VERIFIED)
    return "" if is_verified else str(status.verification_reason)
