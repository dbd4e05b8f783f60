"""The tables of `python -m jobs.report`, on the terminal and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from rich.table import Table
from rich.text import Text

from jobs.reporting.agreement import Agreement
from jobs.reporting.summary import JobSummary
from jobs.units import duration, size
from outputs import VerificationState, scratch_for

JOB_HEADINGS = (
    *("job", "result", "state", "time", "throughput", "peak memory", "chunk", "fallbacks"),
    *("verification", "message"),
)
# The column that shows the state of verification, counted from 0.
RESULT_COLUMN = JOB_HEADINGS.index("result")


def job_cells(one: JobSummary) -> tuple[str, ...]:
    """Return the cells of a job's line, under `JOB_HEADINGS`."""
    rate = "" if one.entries_per_second is None else f"{one.entries_per_second:.3g} entries/s"
    return (
        one.job,
        one.verification,
        one.state,
        "" if one.seconds is None else duration(one.seconds),
        rate,
        "" if one.peak_memory_bytes is None else size(one.peak_memory_bytes),
        "" if one.chunk_size is None else str(one.chunk_size),
        str(len(one.fallbacks) or ""),
        one.verification_reason,
        one.message or "; ".join(one.fallbacks),
    )


def agreement_cells(one: Agreement) -> tuple[str, ...]:
    """Return the cells of a comparison's line, under `AGREEMENT_HEADINGS`."""
    verdict = one.problem or ("agree" if one.agrees else "DISAGREE")
    place = "" if one.place is None else f"row {one.place[0]}, column {one.place[1]}"
    return (one.derivative, one.reference, one.other, f"{one.relative:.1e}", place, verdict)


AGREEMENT_HEADINGS = (
    *("derivative", "reference", "compared", "largest relative difference", "at", "verdict"),
)


def job_table(summaries: Sequence[JobSummary]) -> Table:
    """Return a table with one line per job."""
    table = Table(title=f"{len(summaries)} jobs", title_justify="left")
    for heading in JOB_HEADINGS:
        table.add_column(heading, overflow="fold")
    for one in summaries:
        cells = [Text(cell) for cell in job_cells(one)]
        if one.verification:
            cells[RESULT_COLUMN].stylize(VerificationState(one.verification).style)
        table.add_row(*cells)
    return table


def agreement_table(agreements: Sequence[Agreement]) -> Table:
    """Return a table with one line per comparison of two results."""
    table = Table(title="agreement between strategies", title_justify="left")
    for heading in AGREEMENT_HEADINGS:
        table.add_column(heading, overflow="fold")
    for one in agreements:
        table.add_row(*map(Text, agreement_cells(one)))
    return table


def write_csv(path: Path, summaries: Sequence[JobSummary]) -> None:
    """Write all figures with full precision, one line per job.

    The file appears under its name when it is complete.

    Raises:
        OSError: It cannot be written.
    """
    names = [field.name for field in fields(JobSummary)]
    # Names of directories need not be text.
    with scratch_for(path) as scratch:
        with scratch.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            for one in summaries:
                values = (getattr(one, name) for name in names)
                writer.writerow("; ".join(v) if isinstance(v, tuple) else v for v in values)
        scratch.replace(path)
