"""Show a result as HTML, for Jupyter and everything else that calls ``_repr_html_``.

All styles are inline and no script is used, because notebooks that are not trusted strip both style
sheets and scripts. Text has the colour of the page, so that it can be read on light and dark ones.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping
from typing import TypeVar

from outputs._errors import ResultError
from outputs._format.axes import TensorSpec
from outputs._format.verification_state import Verdict, VerificationState
from outputs._reading.presentation.facts import (
    TENSOR_HEADINGS,
    dense_facts,
    records,
    sparse_facts,
    tensor_rows,
)
from outputs._reading.presentation.picture import (
    MISSING,
    NOT_FINITE,
    VIRIDIS,
    ZERO,
    Picture,
    dense_picture,
    sparse_picture,
)
from outputs._reading.presentation.protocols import AnyResult, ShownResult, ShownSparseResult
from outputs._text import printable

_LONGEST_TEXT = 400
_LONGEST_LINE = 40
_PICTURE_PIXELS = 240
_MOST_STRETCHED = 4
_FAINT = "1px solid rgba(128,128,128,.35)"
_CELL = (
    f"text-align:left;vertical-align:top;padding:2px 8px;border:0;border-bottom:{_FAINT};"
    "background:transparent;overflow-wrap:anywhere"
)
_Shown = TypeVar("_Shown", bound=AnyResult)


def dense_page(result: ShownResult) -> str:
    """Return a dense result as HTML; whatever the file contains, nothing is raised."""
    return _page(result, dense_facts, dense_picture, result.matrix_shape)


def sparse_page(result: ShownSparseResult) -> str:
    """Return a sparse result as HTML; whatever the file contains, nothing is raised."""
    return _page(result, sparse_facts, sparse_picture, result.shape)


def _page(
    result: _Shown,
    facts: Callable[[_Shown], dict[str, str]],
    picture: Callable[[_Shown], Picture],
    shape: tuple[int, int],
) -> str:
    try:
        verdict, told = result.verdict, facts(result)
        folded = [_pairs(title, named) for title, named in records(result)]
    except ResultError as error:
        return _frame(VerificationState.CONTRADICTED, _banner("Cannot be shown", str(error)))
    told.pop("verification")
    try:
        drawn = _figure(picture(result), shape)
    except ResultError as error:
        drawn = _banner("The matrix cannot be read", str(error))
    body = (
        f'<div style="display:flex;flex-wrap:wrap;gap:16px;margin:8px 0">{drawn}'
        f'<div style="flex:1 1 24em;min-width:0">{_table(told)}</div></div>',
        _folded(f"Rows: {_count(result.rows)}", _tensors(result.rows)),
        _folded(f"Columns: {_count(result.columns)}", _tensors(result.columns)),
        *folded,
    )
    return _frame(verdict.state, _state(verdict) + "".join(body))


def _frame(state: VerificationState, content: str) -> str:
    """Return the outermost element; the classes keep MathJax from the text between dollar signs."""
    width = 2 if state is VerificationState.VERIFIED else 8
    return (
        '<div class="tex2jax_ignore mathjax_ignore" style="font-size:13px;line-height:1.45;'
        f"max-width:75rem;padding-left:10px;border-left:{width}px solid {state.colour}"
        f'">{content}</div>'
    )


def _state(verdict: Verdict) -> str:
    """Return the state and its reason: a mark for a verified result, else a bar across the page."""
    if verdict.state is not VerificationState.VERIFIED:
        return _banner(verdict.state.upper(), verdict.reason, verdict.state.colour)
    mark = (
        f'<span style="background:{verdict.state.colour};color:#ffffff;font-weight:700;'
        f'padding:1px 8px;border-radius:3px">{verdict.state}</span>'
    )
    return f"<div>{mark} {_text(verdict.reason)}</div>"


def _banner(what: str, why: str, colour: str = VerificationState.CONTRADICTED.colour) -> str:
    return (
        f'<div style="background:{colour};color:#ffffff;font-weight:700;font-size:15px;'
        f'padding:6px 10px;overflow-wrap:anywhere">{_text(what)}: {_text(why)}</div>'
    )


def _figure(picture: Picture, shape: tuple[int, int]) -> str:
    if not picture.magnitude.size:
        return "<div>no entries</div>"
    ratio = min(max(shape[0] / shape[1], 1 / _MOST_STRETCHED), _MOST_STRETCHED)
    width, height = (round(_PICTURE_PIXELS * min(1, part)) for part in (1 / ratio, ratio))
    data = base64.b64encode(picture.png()).decode()
    return (
        f'<div style="flex:0 0 auto;max-width:{_PICTURE_PIXELS}px">'
        f'<img alt="magnitudes of the entries" src="data:image/png;base64,{data}" '
        f'width="{width}" height="{height}" style="width:{width}px;height:{height}px;'
        f'max-width:none;image-rendering:pixelated;border:{_FAINT};margin:0">'
        f"{_legend(picture, shape)}</div>"
    )


def _legend(picture: Picture, shape: tuple[int, int]) -> str:
    one_each = picture.magnitude.shape == shape
    parts = ["|entry|" if one_each else "largest |entry| in each cell"]
    if picture.is_sample:
        parts = ["largest |entry| of a sample in each cell"]
    if picture.range is not None:
        low, high = (f"{end:.1e}" for end in picture.range)
        colours = ",".join(f"#{colour}" for colour in VIRIDIS)
        bar = (
            '<span style="display:inline-block;width:72px;height:10px;'
            f'background:linear-gradient(90deg,{colours})"></span>'
        )
        parts.append(f"{low} {bar} {high}")
    if (picture.seen & (picture.magnitude == 0) & ~picture.nonfinite).any():
        parts.append(f"{_swatch(ZERO)} zero")
    if not picture.seen.all():
        parts.append(f"{_swatch(MISSING)} not computed yet")
    if picture.nonfinite.any():
        parts.append(f"{_swatch(NOT_FINITE)} <b>NaN or Inf</b>")
    return f'<div style="font-size:11px">{"<br>".join(parts)}</div>'


def _swatch(colour: str) -> str:
    return (
        '<span style="display:inline-block;width:10px;height:10px;'
        f'background:#{colour};border:{_FAINT}"></span>'
    )


def _pairs(title: str, facts: Mapping[str, str]) -> str:
    return _folded(title, _table(facts))


def _folded(title: str, content: str) -> str:
    """Return content that appears on a click on its title, without a script."""
    summary = f'<summary style="cursor:pointer;font-weight:600">{_text(title)}</summary>'
    return f'<details style="margin:4px 0">{summary}{content}</details>'


def _table(facts: Mapping[str, str]) -> str:
    return _rows([(name, value) for name, value in facts.items()])


def _tensors(tensors: tuple[TensorSpec, ...]) -> str:
    return _rows([TENSOR_HEADINGS, *tensor_rows(tensors)], has_head=True)


def _rows(rows: list[tuple[str, ...]], *, has_head: bool = False) -> str:
    lines = []
    for number, cells in enumerate(rows):
        shown = "".join(
            _cell(cell, is_name=place == 0, is_head=has_head and number == 0)
            for place, cell in enumerate(cells)
        )
        lines.append(f'<tr style="background:transparent">{shown}</tr>')
    style = "border-collapse:collapse;border:0;margin:2px 0;font-size:12px;color:inherit"
    return f'<table style="{style}"><tbody>{"".join(lines)}</tbody></table>'


def _cell(text: str, *, is_name: bool, is_head: bool) -> str:
    style = _CELL + (";font-weight:600" if is_name or is_head else "")
    # A browser would rather break names than texts, however short they are.
    if is_name and len(text) <= _LONGEST_LINE:
        style += ";white-space:nowrap"
    return f'<td style="{style}">{_text(text)}</td>'


def _count(tensors: tuple[TensorSpec, ...]) -> str:
    return "1 tensor" if len(tensors) == 1 else f"{len(tensors):,} tensors"


def _text(text: str) -> str:
    """Return text of a file for a page: no markup, no control characters, not too long."""
    if len(text) > _LONGEST_TEXT:
        half = _LONGEST_TEXT // 2
        text = f"{text[:half]} … {text[-half:]}"
    return html.escape(printable(text))
