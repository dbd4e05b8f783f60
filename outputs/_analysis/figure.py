"""Draw the answers that are spectra.

Imports matplotlib, so other modules import this one only inside the functions that draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from outputs._analysis.answer import Answer
from outputs._format.verification_state import Verdict
from outputs._text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN = ("eigenvalues", "singular_values", "spectral_density")
"""The answers that have a panel."""
_INK, _NEGATIVE = "#1f3b5c", "#c0392b"


def draw(answers: Mapping[str, Answer], title: str, verdict: Verdict) -> Figure:
    """Draw a panel for each spectrum, under the state of verification of the result."""
    found = [answers[name] for name in DRAWN if name in answers]
    figure = Figure(figsize=(5.6 * len(found), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, answer in zip(figure.subplots(1, len(found), squeeze=False)[0], found, strict=True):
        {"eigenvalues": _eigenvalues, "singular_values": _singular_values}.get(
            answer.name, _density
        )(axes, answer)
        axes.set_title(printable(answer.method).replace("$", r"\$"), fontsize=9, loc="left")
    text = printable(f"{verdict.state.value}: {title}").replace("$", r"\$")
    figure.suptitle(text, fontsize=11, x=0.012, ha="left", color=verdict.state.colour)
    return figure


def _eigenvalues(axes: Axes, answer: Answer) -> None:
    for values in np.atleast_2d(answer.values)[:200]:
        colours = np.where(values < 0, _NEGATIVE, _INK)
        axes.scatter(np.arange(1, len(values) + 1), values, s=9, c=colours)
    if np.abs(answer.values).max() > 100 * np.median(np.abs(answer.values)):
        axes.set_yscale("symlog", linthresh=max(1e-12, float(np.median(np.abs(answer.values)))))
    axes.set_xlabel("number, from the smallest")
    axes.set_ylabel("eigenvalue")


def _singular_values(axes: Axes, answer: Answer) -> None:
    for values in np.atleast_2d(answer.values)[:200]:
        axes.plot(np.arange(1, len(values) + 1), values, ".", color=_INK)
    if (answer.values > 0).all():
        axes.set_yscale("log")
    axes.set_xlabel("number, from the largest")
    axes.set_ylabel("singular value")


def _density(axes: Axes, answer: Answer) -> None:
    at, share = answer.arrays["at"], answer.values
    axes.step(at, share, where="post", color=_INK)
    axes.fill_between(at, share - 2 * answer.error, share + 2 * answer.error, alpha=0.3)
    axes.set_xlabel("λ (band: two standard errors)")
    axes.set_ylabel("share of the eigenvalues up to λ")
