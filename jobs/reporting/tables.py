"""The tables of `python -m jobs.report`, for the terminal and as CSV."""

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

_COLUMNS = (
    *("job", "state", "time", "throughput", "peak memory", "chunk", "fallbacks"),
    *("verification", "message"),
)


def cells_of(one: JobSummary) -> tuple[str, ...]:
    """What a table shows of a job, under the headings `_COLUMNS`."""
    rate = "" if one.entries_per_second is None else f"{one.entries_per_second:.3g} entries/s"
    verified = one.verification
    if one.error is not None and one.tolerance is not None:
        verified += f" {one.error:.1e} (allowed {one.tolerance:.1e})"
    return (
        one.job,
        one.state,
        "" if one.seconds is None else duration(one.seconds),
        rate,
        "" if one.peak_memory_bytes is None else size(one.peak_memory_bytes),
        "" if one.chunk_size is None else str(one.chunk_size),
        str(len(one.fallbacks) or ""),
        verified,
        one.message or "; ".join(one.fallbacks),
    )


def headings() -> tuple[str, ...]:
    """The headings of `cells_of`."""
    return _COLUMNS


def agreement_cells(one: Agreement) -> tuple[str, ...]:
    """What a table shows of two results."""
    verdict = one.problem or ("agree" if one.agrees else "DISAGREE")
    place = "" if one.place is None else f"row {one.place[0]}, column {one.place[1]}"
    return (one.derivative, one.reference, one.other, f"{one.relative:.1e}", place, verdict)


AGREEMENT_HEADINGS = (
    *("derivative", "reference", "compared", "largest relative difference", "at", "verdict"),
)


def job_table(summaries: Sequence[JobSummary]) -> Table:
    """One line a job."""
    table = Table(title=f"{len(summaries)} jobs", title_justify="left")
    for heading in _COLUMNS:
        table.add_column(heading, overflow="fold")
    for one in summaries:
        table.add_row(*map(Text, cells_of(one)))
    return table


def agreement_table(agreements: Sequence[Agreement]) -> Table:
    """One line for each two results of the same derivative."""
    table = Table(title="agreement between strategies", title_justify="left")
    for heading in AGREEMENT_HEADINGS:
        table.add_column(heading, overflow="fold")
    for one in agreements:
        table.add_row(*map(Text, agreement_cells(one)))
    return table


def write_csv(path: Path, summaries: Sequence[JobSummary]) -> None:
    """Write all figures with full digits, one line a job."""
    names = [field.name for field in fields(JobSummary)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for one in summaries:
            values = (getattr(one, name) for name in names)
            writer.writerow("; ".join(v) if isinstance(v, tuple) else v for v in values)
