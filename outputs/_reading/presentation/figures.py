"""Draw results with matplotlib, without its global state.

Imports matplotlib, so other modules import this one only inside the functions that draw.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from outputs._format.axes import TensorSpec
from outputs._format.verification_state import VerificationState
from outputs._reading.presentation.matrix_statistics import Survey, least_shown
from outputs._reading.presentation.protocols import AnyResult, ShownResult, ShownSparseResult
from outputs._reading.presentation.sparsity_pattern import occupancy
from outputs._reading.presentation.spectrum import Spectrum
from outputs._text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _FAINT = "#1f3b5c", "#9aa5b1"
_NEGATIVE, _WRONG = "#c0392b", "#e6007e"
_NAMED_TENSORS = 12
_DRAWN_BOUNDARIES = 60
_LONGEST_NAME = 22
_NAME_SPACE = 0.045
_LONGEST_TITLE = 90
_POINTS = 2000
_PATTERN_CELLS = 400
_STYLE: dict[str, Any] = {"fontsize": 9}


class ResultFigure(Figure):
    """A figure that a notebook shows whether or not pyplot is imported there."""

    def _repr_png_(self) -> bytes:
        target = io.BytesIO()
        self.savefig(target, format="png", dpi=90)
        return target.getvalue()


def draw(result: ShownResult, seen: Survey, values: Spectrum | None) -> Figure:
    """Draw a matrix: magnitudes with norms at the margins, and the spectrum.

    Args:
        result: The result.
        seen: The statistics of its matrix.
        values: The spectrum; None to omit that panel.
    """
    wide = values is not None
    figure = ResultFigure(figsize=(12.5 if wide else 7.6, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2,
        3 if wide else 2,
        width_ratios=[5, 1.15, 4.2][: 3 if wide else 2],
        height_ratios=[5, 1.15],
    )
    heat = figure.add_subplot(grid[0, 0])
    _heat_map(figure, heat, result, seen)
    _norms(figure.add_subplot(grid[0, 1], sharey=heat), seen.row_norms, "rows")
    below = figure.add_subplot(grid[1, 0], sharex=heat)
    _norms(below, seen.column_norms, "columns")
    _label(heat, result, below)
    if values is not None:
        _spectrum(figure.add_subplot(grid[:, 2]), values, result.dtype)
    _head(figure, result, _title(result))
    return figure


def _head(figure: Figure, result: AnyResult, title: str) -> None:
    """Write the title, after the state of verification and in its colour."""
    state = result.verdict.state
    weight = "bold" if state is VerificationState.CONTRADICTED else "normal"
    text = f"{state.value}: {title}"
    figure.suptitle(text, fontsize=13, x=0.012, ha="left", color=state.colour, weight=weight)


def draw_pattern(result: ShownSparseResult) -> Figure:
    """Draw the pattern of a sparse matrix: the number of entries in each cell of a grid.

    Args:
        result: The result.
    """
    rows, columns = result.shape
    figure = ResultFigure(figsize=(7.6, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if rows and columns:
        _pattern(figure, axes, result)
    axes.set_xlabel("column", **_STYLE)
    axes.set_ylabel("row", **_STYLE)
    _head(
        figure,
        result,
        _plain(f"{result.operation.capitalize()} of {result.function}"[:_LONGEST_TITLE])
        + f"\n{rows:,} x {columns:,} (rows x columns), {result.dtype}, {result.entries:,} entries",
    )
    return figure


def _pattern(figure: Figure, axes: Axes, result: ShownSparseResult) -> None:
    rows, columns = result.shape
    cells = min(rows, _PATTERN_CELLS), min(columns, _PATTERN_CELLS)
    counts = occupancy(*result.pattern, result.shape, *cells).astype(float)
    image = axes.imshow(
        np.ma.masked_equal(counts, 0),
        extent=(0, columns, rows, 0),
        aspect="auto" if max(rows, columns) > 4 * min(rows, columns) else "equal",
        interpolation="nearest",
        cmap="viridis",
        norm=LogNorm(vmin=0.9, vmax=max(1.0, counts.max())),
    )
    a_cell = (
        "an entry" if cells == result.shape else f"{rows / cells[0]:.3g} x {columns / cells[1]:.3g}"
    )
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label(f"entries in a cell of {a_cell}", **_STYLE)


def _title(result: ShownResult) -> str:
    rows, columns = result.matrix_shape
    what = f"{result.operation.capitalize()} of {result.function}"
    if len(what) > _LONGEST_TITLE:
        what = what[: _LONGEST_TITLE - 1] + "…"
    strategy = _plain(result.strategy[:_LONGEST_TITLE])
    return f"{_plain(what)}\n{rows:,} x {columns:,} (rows x columns), {result.dtype}, {strategy}"


def _heat_map(figure: Figure, axes: Axes, result: ShownResult, seen: Survey) -> None:
    rows, columns = result.matrix_shape
    largest = float(seen.magnitude.max(initial=0.0))
    extent = (0, max(1, columns), max(1, rows), 0)
    placement: dict[str, Any] = {"extent": extent, "aspect": "auto", "interpolation": "nearest"}
    axes.set_facecolor("white")
    if largest > 0:
        least = least_shown(seen.magnitude, largest)
        shown = np.ma.masked_equal(seen.magnitude, 0)
        image = axes.imshow(
            np.ma.clip(shown, least, largest),
            norm=LogNorm(least, largest),
            cmap="viridis",
            **placement,
        )
        bar = figure.colorbar(image, ax=axes, location="top", shrink=0.95, aspect=40, pad=0.02)
        bar.set_label(_legend(result, seen), **_STYLE)
        bar.ax.tick_params(which="both", labelsize=8)
    else:
        axes.set_xlim(extent[:2])
        axes.set_ylim(extent[2:])
        axes.set_title(
            "every entry is zero" if 0 not in result.matrix_shape else "no entries", **_STYLE
        )
    if seen.nonfinite.any():
        nonfinite = np.ma.masked_equal(seen.nonfinite, False)
        axes.imshow(nonfinite, cmap=ListedColormap([_WRONG]), **placement)


def _legend(result: ShownResult, seen: Survey) -> str:
    rows, columns = result.matrix_shape
    parts = ["|entry|"]
    if seen.magnitude.size < rows * columns:
        parts = ["largest |entry| in each cell"]
    if seen.zero_entries:
        share = 100 * seen.zero_entries / (rows * columns)
        parts.append(f"white: zero ({share:.3g} % of the entries)")
    if seen.nonfinite_entries:
        parts.append(f"magenta: NaN or Inf ({seen.nonfinite_entries:,})")
    return ";  ".join(parts)


def _label(heat: Axes, result: ShownResult, below: Axes) -> None:
    for axis, what, tensors, length in (
        (heat.yaxis, "rows", result.rows, result.matrix_shape[0]),
        (heat.xaxis, "columns", result.columns, result.matrix_shape[1]),
    ):
        edges = np.cumsum([0, *(tensor.size for tensor in tensors)])
        if 1 < len(tensors) <= _DRAWN_BOUNDARIES:
            line = heat.axhline if what == "rows" else heat.axvline
            for edge in edges[1:-1]:
                line(edge, color=_FAINT, linewidth=0.6)
        if 1 < len(tensors) <= _NAMED_TENSORS:
            _name_tensors(axis, tensors, edges, length)
        else:
            axis.set_major_locator(MaxNLocator(6, integer=True))
        names = _shortened(tensors[0]) if len(tensors) == 1 else f"{len(tensors)} tensors"
        axis.set_label_text(f"{what}: {names}", **_STYLE)
    heat.tick_params(labelsize=8)
    heat.tick_params(axis="x", labelbottom=False, bottom=False)
    below.set_xlabel(heat.get_xlabel(), **_STYLE)
    heat.set_xlabel("")
    if 1 < len(result.columns) <= _NAMED_TENSORS:
        for name in below.get_xticklabels():
            name.set(rotation=35, ha="right", rotation_mode="anchor")


def _name_tensors(
    axis: Any, tensors: tuple[TensorSpec, ...], edges: np.ndarray, length: int
) -> None:
    """Write names at the middles of the ranges, preferring larger ranges if space is short."""
    named: dict[float, str] = {}
    ranges = zip(tensors, edges[:-1], edges[1:], strict=True)
    for tensor, start, stop in sorted(ranges, key=lambda part: part[1] - part[2]):
        middle = float(start + stop) / 2
        if all(abs(middle - other) >= _NAME_SPACE * length for other in named):
            named[middle] = _shortened(tensor, with_shape=False)
    axis.set_ticks(list(named), list(named.values()))
    axis.set_tick_params(length=0)


def _shortened(tensor: TensorSpec, with_shape: bool = True) -> str:
    name = tensor.name
    if len(name) > _LONGEST_NAME:
        name = "…" + name[1 - _LONGEST_NAME :]
    return _plain(f"{name} {tensor.shape}" if with_shape else name)


def _plain(text: str) -> str:
    """Return a text for matplotlib, which takes what is between two dollar signs as a formula."""
    return printable(text).replace("$", r"\$")


def _norms(axes: Axes, norms: np.ndarray, what: str) -> None:
    """Draw norms along a margin; if there are very many, draw the largest of each group."""
    places, group = np.arange(len(norms)) + 0.5, -(-len(norms) // _POINTS)
    if group > 1:
        first = np.arange(0, len(norms), group)
        norms, places = np.maximum.reduceat(norms, first), first + group / 2
    positive = np.where((norms > 0) & np.isfinite(norms), norms, np.nan)
    log = np.isfinite(positive).any() and np.nanmax(positive) > 20 * np.nanmin(positive)
    shown = positive if log else norms
    scale = "log" if log else "linear"
    mark: dict[str, Any] = {"color": _INK, "linewidth": 0.9}
    if len(norms) <= 60:
        mark |= {"marker": ".", "markersize": 4}
    if what == "rows":
        axes.plot(shown, places, **mark)
        axes.set_xscale(scale)
        axes.tick_params(axis="y", labelleft=False, left=False)
        value = axes.xaxis
        axes.set_title("row norms", **_STYLE)
    else:
        axes.plot(places, shown, **mark)
        axes.set_yscale(scale)
        value = axes.yaxis
        axes.set_ylabel("column norms", **_STYLE)
    if log:
        value.set_major_locator(LogLocator(numticks=4))
        value.set_minor_formatter(NullFormatter())
    else:
        value.set_major_locator(MaxNLocator(3))
    axes.tick_params(which="both", labelsize=8)
    axes.grid(color=_FAINT, alpha=0.35, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _spectrum(axes: Axes, values: Spectrum, dtype: np.dtype) -> None:
    """Draw magnitudes by rank, separately by sign; omit values that are zero up to rounding."""
    largest = np.abs(values.values).max(initial=0.0)
    # The backward error of a dense solver is a small multiple of this (LAPACK Users' Guide, 4.7).
    noise = largest * len(values.values) * np.finfo(np.result_type(dtype, np.float32)).eps
    drawn = values.values[np.abs(values.values) > noise]
    zero = len(values.values) - len(drawn)
    signs = (("positive", 1, _INK), ("negative", -1, _NEGATIVE))
    for label, sign, colour in signs:
        sizes = np.sort(sign * drawn[sign * drawn > 0])[::-1]
        if sizes.size:
            label = f"{label} ({sizes.size:,})"
            rank = np.arange(1, sizes.size + 1)
            axes.plot(rank, sizes, ".", color=colour, markersize=5, label=label)
    if largest > 0:
        axes.set_yscale("log")
        axes.set_ylim(np.abs(drawn).min() / 2, largest * 2)
    if (drawn < 0).any():
        axes.legend(fontsize=8, frameon=False)
    by = "|eigenvalue|" if values.kind == "eigenvalues" else "singular value"
    rest = f" ({zero:,} zero up to rounding, not drawn)" if zero else ""
    axes.set_title(f"{values.kind}: {values.method}{rest}", **_STYLE)
    among = " of each sign" if values.kind == "eigenvalues" else ""
    axes.set_xlabel(f"rank by magnitude{among}", **_STYLE)
    axes.set_ylabel(by, **_STYLE)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.tick_params(which="both", labelsize=8)
    axes.grid(color=_FAINT, alpha=0.35, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
