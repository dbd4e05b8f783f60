"""The progress of a job in Jupyter: one bar, which each update replaces."""

from __future__ import annotations

from html import escape
from typing import Any

from jobs.reporting.progress import Advance, Progress

_SECONDS_BETWEEN_UPDATES = 0.25


def bar_of_notebook(progress: Progress) -> Advance:
    """Show a bar in the output of the cell, by Jupyter's updatable displays; no widgets are needed.

    Args:
        progress: What the bar shows.

    Returns:
        A function to call with the number of rows or columns computed since its last call.
    """
    from IPython.display import display

    handle: Any = display(_bundle(0, 1, "..."), raw=True, display_id=True)

    def show(now: Progress) -> None:
        figures = now.figures()
        handle.update(_bundle(figures["done"], figures["total"], str(now)), raw=True)

    return progress.every(_SECONDS_BETWEEN_UPDATES, show)


def _bundle(done: int, total: int, text: str) -> dict[str, str]:
    bar = f'<progress value="{done}" max="{total}"></progress>'
    return {"text/plain": text, "text/html": f"{bar} <code>{escape(text)}</code>"}
