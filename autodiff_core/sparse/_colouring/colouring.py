"""Colourings: which rows or columns of a sparse matrix are computed by one product.

The sources are listed in `kernels`. Which entries a colouring determines directly is described by
Gebremedhin, Manne and Pothen (2005), sections 3 (columns, rows), 4 (star colouring of symmetric
matrices) and 5 (rows and columns together).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autodiff_core.sparse._colouring import kernels
from autodiff_core.sparse._errors import PatternError
from autodiff_core.sparse._pattern import SparsityPattern, arrays_of, open_archive, pattern_from

Kind = Literal["column", "row", "bidirectional", "star"]
Order = Literal["auto", "natural", "largest-first", "smallest-last", "incidence-degree"]
KINDS = ("column", "row", "bidirectional", "star")
ORDERS = ("natural", "largest-first", "smallest-last", "incidence-degree")

# How often a colouring is repeated in the order of its own classes, which never needs more colours
# (J. Culberson, Iterated greedy graph coloring and the difficulty landscape, 1992).
_ITERATIONS = 3
# Rows or columns with this many times the median number of entries are computed separately.
_DENSE = (4.0, 16.0, 64.0)
_MANY_NEIGHBOURS = 256


@dataclass(frozen=True, eq=False)
class Colouring:
    """A colour for each row, column or both, such that compressed products determine each entry.

    Attributes:
        pattern: The pattern.
        kind: ``column``, ``row``, ``bidirectional``, or ``star`` for a symmetric pattern.
        column_colours: int32 (columns,), colours from 0, -1 for a column that belongs to no
            product; None for the kind ``row``.
        row_colours: int32 (rows,), colours from 0, -1 for a row that belongs to no product; None
            for the kinds ``column`` and ``star``.
    """

    pattern: SparsityPattern
    kind: Kind
    column_colours: NDArray[np.int32] | None
    row_colours: NDArray[np.int32] | None

    @cached_property
    def columns(self) -> int:
        """The number of products from the right (pushforwards)."""
        return _count(self.column_colours)

    @cached_property
    def rows(self) -> int:
        """The number of products from the left (pullbacks)."""
        return _count(self.row_colours)

    @property
    def colours(self) -> int:
        """The total number of products."""
        return self.columns + self.rows

    def save(self, path: str | Path) -> None:
        """Write the colouring and its pattern to an .npz archive, under exactly this path."""
        arrays: dict[str, Any] = arrays_of(self.pattern) | {"kind": np.array(self.kind)}
        if self.column_colours is not None:
            arrays["column_colours"] = self.column_colours
        if self.row_colours is not None:
            arrays["row_colours"] = self.row_colours
        with Path(path).open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Colouring:
        """Read what `save` wrote.

        Raises:
            PatternError: The file contains no colouring, or one that does not fit its pattern.
        """
        with open_archive(path) as archive:
            pattern = pattern_from(archive, str(path))
            if "kind" not in archive or str(archive["kind"]) not in KINDS:
                raise PatternError(f"{path} holds no colouring")
            kind: Any = str(archive["kind"])
            columns, rows = (archive.get(name) for name in ("column_colours", "row_colours"))
            colouring = cls(pattern, kind, columns, rows)
            colouring.check(str(path))
            return colouring

    def check(self, name: str = "the colouring") -> None:
        """Check that the products determine every entry.

        Raises:
            PatternError: They do not.
        """
        rows, columns = self.pattern.shape
        wanted = {
            "column": (True, False),
            "star": (True, False),
            "row": (False, True),
            "bidirectional": (True, True),
        }[self.kind]
        for colours, size, is_wanted in zip(
            (self.column_colours, self.row_colours), (columns, rows), wanted, strict=True
        ):
            if (colours is not None) is not is_wanted or not _are_colours(colours, size, self.kind):
                raise PatternError(
                    f"{name}: the colours do not fit a pattern of {rows} x {columns}"
                )
        if self.kind == "star" and not self.pattern.is_symmetric():
            raise PatternError(f"{name}: a star colouring is for a symmetric pattern")
        if int(self.sources.min(initial=0)) < 0:
            raise PatternError(f"{name}: two entries that a product adds up share a colour")

    @cached_property
    def sources(self) -> NDArray[np.int64]:
        """The position of each entry of the pattern in the compressed products, int64 (entries,).

        The products from the right come first, each as a line of as many numbers as the matrix has
        rows, then those from the left, each of as many numbers as it has columns; -1 stands for an
        entry that no product determines.
        """
        pattern = self.pattern
        rows, columns = pattern.shape
        if self.kind == "star":
            assert self.column_colours is not None
            return kernels.symmetric_sources(pattern.indptr, pattern.indices, self.column_colours)
        none = np.full(1, -1, dtype=np.int32)
        return kernels.direct_sources(
            pattern.indptr,
            pattern.indices,
            none if self.column_colours is None else self.column_colours,
            none if self.row_colours is None else self.row_colours,
            self.columns,
            self.rows,
            rows,
            columns,
        )


def colour(
    pattern: SparsityPattern,
    *,
    kind: Kind | Literal["auto"] = "auto",
    symmetric: bool = False,
    order: Order = "auto",
) -> Colouring:
    """Return a greedy colouring of a pattern.

    Args:
        pattern: The pattern.
        kind: ``column`` for products from the right, ``row`` for products from the left,
            ``bidirectional`` for both, ``star`` for products with a symmetric matrix; ``auto``
            chooses the kind with the fewest colours, ``star`` only for a `symmetric` matrix.
        symmetric: Whether the matrix is symmetric, as a Hessian is.
        order: The order in which rows or columns receive colours: ``natural``,
            ``largest-first``, ``smallest-last``, ``incidence-degree``; ``auto`` tries several, and
            the order of the classes found, and keeps the best colouring.

    Raises:
        PatternError: ``star`` for a pattern that is not symmetric.
        ValueError: An invalid kind or order.
    """
    if kind not in ("auto", *KINDS):
        raise ValueError(f"kind={kind!r}: valid are auto, {', '.join(KINDS)}")
    if order not in ("auto", *ORDERS):
        raise ValueError(f"order={order!r}: valid are auto, {', '.join(ORDERS)}")
    if kind == "star" or (kind == "auto" and symmetric):
        if not pattern.is_symmetric():
            raise PatternError("a star colouring is for a symmetric pattern, and this one is not")
        return Colouring(pattern, "star", _star(pattern, order), None)
    sides = _Sides(pattern)
    if kind == "column":
        return Colouring(pattern, "column", sides.columns(order), None)
    if kind == "row":
        return Colouring(pattern, "row", None, sides.rows(order))
    if kind == "bidirectional":
        return _bidirectional(sides, order)
    return _fewest(sides, order)


def _fewest(sides: _Sides, order: Order) -> Colouring:
    """Return the colouring with the fewest colours: of columns, of rows, or bidirectional."""
    pattern = sides.pattern
    # A row with n entries needs at least n colours of columns, and vice versa.
    least = {"column": sides.most_in_a_row, "row": sides.most_in_a_column}
    best: Colouring | None = None
    typical = max(1.0, pattern.entries / max(1, *pattern.shape))
    if min(least.values()) > _DENSE[0] * typical:
        best = _bidirectional(sides, order)
    for kind in sorted(least, key=lambda kind: least[kind]):
        # Two directions cost more than one with the same number of products.
        if best is not None and least[kind] > best.colours - (best.kind != "bidirectional"):
            continue
        if kind == "column":
            found = Colouring(pattern, "column", sides.columns(order), None)
        else:
            found = Colouring(pattern, "row", None, sides.rows(order))
        if best is None or found.colours <= best.colours - (best.kind != "bidirectional"):
            best = found
    assert best is not None
    return best


def _bidirectional(sides: _Sides, order: Order) -> Colouring:
    """Colour dense rows for products from the left, the rest for the right, or vice versa."""
    pattern = sides.pattern
    candidates = []
    for factor in _DENSE:
        for counts, length in ((sides.in_rows, 0), (sides.in_columns, 1)):
            dense = counts > factor * max(1.0, float(np.median(counts)))
            if not dense.any():
                continue
            if length == 0:
                by_columns = sides.columns(order, rows=~dense)
                by_rows = sides.rows(order, among=dense)
            else:
                by_rows = sides.rows(order, columns=~dense)
                by_columns = sides.columns(order, among=dense)
            candidates.append(Colouring(pattern, "bidirectional", by_columns, by_rows))
    if not candidates:
        none = np.full(pattern.shape[0], -1, dtype=np.int32)
        return Colouring(pattern, "bidirectional", sides.columns(order), none)
    return min(candidates, key=lambda colouring: colouring.colours)


class _Sides:
    """A pattern by rows and by columns, with greedy colourings of each."""

    def __init__(self, pattern: SparsityPattern) -> None:
        self.pattern = pattern
        self._by_rows = (pattern.indptr, pattern.indices)
        transposed = pattern.transposed()
        self._by_columns = (transposed.indptr, transposed.indices)
        self.in_rows = np.diff(pattern.indptr)
        self.in_columns = np.diff(transposed.indptr)

    @property
    def most_in_a_row(self) -> int:
        return int(self.in_rows.max(initial=0))

    @property
    def most_in_a_column(self) -> int:
        return int(self.in_columns.max(initial=0))

    def columns(
        self,
        order: Order,
        rows: NDArray[np.bool_] | None = None,
        among: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int32]:
        """Colour the columns, or those `among` them, by all rows or some."""
        return _partial(self._by_rows, self._by_columns, order, rows, among)

    def rows(
        self,
        order: Order,
        columns: NDArray[np.bool_] | None = None,
        among: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int32]:
        """Colour the rows, or those `among` them, by all columns or some."""
        return _partial(self._by_columns, self._by_rows, order, columns, among)


Compressed = tuple[NDArray[Any], NDArray[Any]]


def _partial(
    along: Compressed,
    across: Compressed,
    order: Order,
    chosen: NDArray[np.bool_] | None,
    among: NDArray[np.bool_] | None,
) -> NDArray[np.int32]:
    """Return a partial distance-two colouring of the lines of `across`."""
    if chosen is None:
        chosen = np.ones(len(along[0]) - 1, dtype=np.bool_)

    def coloured(sequence: NDArray[np.int64]) -> NDArray[np.int32]:
        if among is not None:
            sequence = sequence[among[sequence]]
        return kernels.partial_distance_two(*along, *across, sequence, chosen)

    # All columns with an entry in one row need different colours.
    fewest = int(np.diff(along[0])[chosen].max(initial=0)) if among is None else 1
    return _best(coloured, order, lambda name: _sequence(name, along, across), fewest)


def _star(pattern: SparsityPattern, order: Order) -> NDArray[np.int32]:
    """Return a star colouring in which each vertex with very many neighbours has its own colour.

    That is always allowed: a path of four vertices with such a vertex has no second vertex of its
    colour. The other vertices are coloured without them, in a time that does not grow with the
    square of the number of their neighbours.
    """
    degrees = np.diff(pattern.indptr)
    dense = degrees > max(_DENSE[-1] * float(np.median(degrees)), _MANY_NEIGHBOURS)
    if not dense.any():
        return _star_of_all(pattern, order)
    matrix: Any = pattern.to_scipy(np.ones(pattern.entries, np.int8))
    rest = np.flatnonzero(~dense)
    colours = np.empty(len(degrees), dtype=np.int32)
    inner = SparsityPattern.from_scipy(matrix[rest][:, rest])
    colours[rest] = _star_of_all(inner, order)
    first = int(colours[rest].max(initial=-1)) + 1
    colours[dense] = np.arange(first, first + int(dense.sum()), dtype=np.int32)
    return colours


def _star_of_all(pattern: SparsityPattern, order: Order) -> NDArray[np.int32]:
    compressed = (pattern.indptr, pattern.indices)

    def coloured(sequence: NDArray[np.int64]) -> NDArray[np.int32]:
        return kernels.star(*compressed, sequence)

    # A pattern with entries off the diagonal has a star, which needs two colours.
    return _best(coloured, order, lambda name: _sequence(name, compressed, compressed), 2)


def _best(coloured: Any, order: Order, sequence: Any, fewest: int) -> NDArray[np.int32]:
    """Return the colouring of an order, or the best of several orders.

    Stop at a colouring with no more than `fewest` colours.
    """
    if order != "auto":
        return coloured(sequence(order))
    best = coloured(sequence("natural"))
    for name in ("largest-first", "incidence-degree"):
        if _count(best) <= fewest:
            return best
        best = min(best, coloured(sequence(name)), key=_count)
    for _ in range(_ITERATIONS):
        if _count(best) <= fewest:
            return best
        again = coloured(_by_classes(best))
        best = again if _count(again) <= _count(best) else best
    return best


def _by_classes(colours: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the order class by class, the last first: classes stay together or merge."""
    return np.argsort(-colours.astype(np.int64), kind="stable")


def _sequence(name: str, along: Compressed, across: Compressed) -> NDArray[np.int64]:
    size = len(across[0]) - 1
    if name == "natural":
        return np.arange(size, dtype=np.int64)
    degrees = kernels.distance_two_degrees(*along, *across)
    if name == "largest-first":
        return np.argsort(-degrees, kind="stable")
    return kernels.bucket_order(*along, *across, degrees, name == "smallest-last")


def _are_colours(colours: NDArray[Any] | None, size: int, kind: Kind) -> bool:
    """Return whether an array gives each of `size` lines a colour that a kernel can count with."""
    if colours is None:
        return True
    if colours.shape != (size,) or colours.dtype != np.int32:
        return False
    # Every line of a star colouring has a colour; -1 stands for none.
    least = 0 if kind == "star" else -1
    return not size or (least <= int(colours.min()) and int(colours.max()) < size)


def _count(colours: NDArray[np.int32] | None) -> int:
    return 0 if colours is None else int(colours.max(initial=-1)) + 1
