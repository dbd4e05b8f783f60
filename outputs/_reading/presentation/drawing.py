"""Draw a result with Matplotlib, which is imported only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outputs._format.description import PRODUCTS
from outputs._optional import load
from outputs._reading.presentation.matrix_statistics import Survey, survey
from outputs._reading.presentation.protocols import ShownResult, ShownSparseResult
from outputs._reading.presentation.spectrum import Spectrum, spectrum

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPECTRUM_VALUES = 20
"""How many eigenvalues or singular values of a large matrix are computed by default."""


def dense_figure(result: ShownResult, purpose: str, *, values: int) -> Figure:
    """Draw magnitudes, norms and spectrum of a complete result.

    Args:
        result: A complete result.
        purpose: What the figure is for, as the subject of a sentence.
        values: Number of values to compute of a large spectrum; 0 for no spectrum.

    Raises:
        MissingDependencyError: If Matplotlib, or SciPy for a large matrix, is not installed.
        ResultError: If the result is closed, incomplete or damaged, or has many points.
    """
    result.require_one_point(purpose)
    result.require_all_entries(purpose)
    load("matplotlib", "plot", purpose)
    from outputs._reading.presentation.figures import draw

    seen = survey(result)
    return draw(result, seen, drawn_spectrum(result, seen, values))


def drawn_spectrum(result: ShownResult, seen: Survey, values: int) -> Spectrum | None:
    """Return the spectrum that a figure shows; None for a product, or with NaN or Inf."""
    if values < 1 or result.operation in PRODUCTS or seen.nonfinite_entries:
        return None
    return spectrum(result, values)


def sparse_figure(result: ShownSparseResult, purpose: str) -> Figure:
    """Draw the pattern of a sparse result.

    Args:
        result: The result.
        purpose: What the figure is for, as the subject of a sentence.

    Raises:
        MissingDependencyError: If Matplotlib is not installed.
        ResultError: If the result is closed or damaged.
    """
    load("matplotlib", "plot", purpose)
    from outputs._reading.presentation.figures import draw_pattern

    return draw_pattern(result)
