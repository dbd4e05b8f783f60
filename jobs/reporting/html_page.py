"""Write a report as one self-contained HTML page with tables and SVG plots.

The plots need matplotlib, which is imported when they are drawn.
"""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from jobs.reporting.agreement import Agreement
from jobs.reporting.summary import JobSummary
from jobs.reporting.tables import AGREEMENT_HEADINGS, JOB_HEADINGS, agreement_cells, job_cells
from outputs import MissingDependencyError, VerificationState, printable, scratch_for

_INK, _BAD, _FAINT = "#1f3b5c", "#c0392b", "#9aa5b1"
_BARS = 40
_LONGEST_NAME = 60
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; margin: 2rem auto; max-width: 95rem;
       padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
th { white-space: nowrap; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #d9dee4;
         vertical-align: top; overflow-wrap: anywhere; }
td:first-child { min-width: 16rem; }
/* Result, state, time, throughput and memory: short, and not to be broken within words. */
div.wide:first-of-type td:nth-child(n+2):nth-child(-n+6) { white-space: nowrap; }
div.wide:first-of-type td:nth-child(9) { min-width: 18rem; }
tr.bad td { color: #c0392b; font-weight: 600; }
svg { max-width: 100%; height: auto; }
"""


def write_page(
    path: Path, directory: Path, summaries: Sequence[JobSummary], agreements: Sequence[Agreement]
) -> None:
    """Write the page; the file appears under its name when it is complete.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        OSError: The page cannot be written.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        f"<h1>{len(summaries)} jobs in {html.escape(printable(str(directory.absolute())))}</h1>",
        f"<p>{now}</p>",
        _table(JOB_HEADINGS, [(job_cells(one), one.state != "finished") for one in summaries]),
        *_plots(summaries),
    ]
    if agreements:
        rows = [(agreement_cells(one), not one.agrees) for one in agreements]
        parts += ["<h2>Agreement between strategies</h2>", _table(AGREEMENT_HEADINGS, rows)]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Jobs</title><style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n"
        "</body></html>\n"
    )
    with scratch_for(path) as scratch:
        scratch.write_text(page, encoding="utf-8")
        scratch.replace(path)


def _table(names: Sequence[str], rows: Sequence[tuple[Sequence[str], bool]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    lines = [
        f"<tr{' class=bad' if is_bad else ''}>" + "".join(map(_cell, cells)) + "</tr>"
        for cells, is_bad in rows
    ]
    body = "\n".join(lines)
    return f'<div class="wide"><table><tr>{head}</tr>\n{body}</table></div>'


def _cell(text: str) -> str:
    """Return a cell; the states of verification have their colours."""
    is_state = text in list(VerificationState)
    colour = f' style="color: {VerificationState(text).colour}"' if is_state else ""
    return f"<td{colour}>{html.escape(printable(text))}</td>"


def _plots(summaries: Sequence[JobSummary]) -> list[str]:
    shown = [one for one in summaries if one.seconds is not None]
    figures = (
        ("Time", "seconds", [(one.job, one.seconds) for one in shown]),
        ("Throughput", "entries a second", [(one.job, one.entries_per_second) for one in shown]),
        ("Peak memory", "MB", [(one.job, _megabytes(one)) for one in shown]),
    )
    parts = []
    for title, unit, values in figures:
        bars = [(name, value) for name, value in values if value is not None]
        if bars:
            note = f" (the first {_BARS})" if len(bars) > _BARS else ""
            parts += [f"<h2>{title}{note}</h2>", _bars(bars[:_BARS], unit)]
    return parts


def _megabytes(one: JobSummary) -> float | None:
    return None if one.peak_memory_bytes is None else one.peak_memory_bytes / 1e6


def _bars(values: Sequence[tuple[str, float]], unit: str) -> str:
    """Draw horizontal bars as SVG, on a logarithmic scale if they differ by a factor over 100."""
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "--html needs matplotlib: pip install 'autodiff-jobs[plot]'."
        ) from error
    # Matplotlib interprets text between two dollar signs as a formula.
    names = [printable(_shortened(name)).replace("$", r"\$") for name, _ in values]
    lengths = [value for _, value in values]
    figure = Figure(figsize=(10, 0.6 + 0.28 * len(values)), layout="constrained")
    canvas = FigureCanvasSVG(figure)
    axes = figure.subplots()
    places = range(len(values))
    axes.barh(places, lengths, color=_INK, height=0.65)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(unit, fontsize=9)
    if min(lengths) > 0 and max(lengths) > 100 * min(lengths):
        axes.set_xscale("log")
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color=_FAINT, alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    target = io.StringIO()
    canvas.print_svg(target)
    # The XML header is only valid in a separate file.
    text = target.getvalue()
    return text[text.index("<svg") :]


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"…{name[-_LONGEST_NAME:]}"
