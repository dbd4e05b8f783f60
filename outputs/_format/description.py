"""Describe a result before its first block exists."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from outputs._errors import ResultError
from outputs._format.axes import Axis, Shard, TensorSpec
from outputs._format.drawn_vectors import DrawnVectors
from outputs._format.probes import Probes, require_fitting
from outputs._format.ragged_matrices import Sizes, sizes_of, sizes_of_groups
from outputs._format.selection import Selection
from outputs._format.validation import require_choice

Compression = Literal["none", "gzip"]

CURVATURES = ("ggn", "fisher")
SYMMETRIC = ("hessian", *CURVATURES)
MATRICES = ("jacobian", *SYMMETRIC)
PRODUCTS = ("vjp", "jvp", "vhp", "hvp")
FULL, DIAGONAL, BLOCKS = "full", "diagonal", "blocks"
STRUCTURES = (FULL, DIAGONAL, BLOCKS)


@dataclass(frozen=True)
class ResultDescription:
    """Everything known before the first block; it is written to the file and sealed.

    Attributes:
        operation: ``jacobian``, ``hessian``, ``ggn``, ``fisher``, ``vjp``, ``jvp``, ``vhp`` or
            ``hvp``; also the name of the matrix in the file.
        strategy: Name of the strategy that computes the blocks.
        function: Reference of the function, for example ``package.module:name``.
        fingerprint: Hash of the options that determine the numbers.
        axis: The axis along which blocks arrive.
        rows: The tensors whose elements make up the rows, in order; for the products one
            ``TensorSpec("vectors", (count,), "int64")``.
        columns: The tensors whose elements make up the columns, in order.
        dtype: Stored dtype of the matrix; a numpy dtype.
        rows_are_tuple: Whether the function returned a tuple (for a Hessian: took one).
        columns_are_tuple: Whether the columns' tensors came as a tuple.
        point: The inputs, by name.
        value: The function's value at these inputs, by name.
        vectors: The vectors of a product, by name.
        configuration: The composed configuration as YAML.
        provenance: Versions, device, seeds, commit, host, time of creation and the like.
        tile: Shape of the HDF5 chunk; None to choose it automatically.
        compression: ``none`` or ``gzip``.
        probes: Products by which the matrix can be verified; None without.
        shard: The lines of the matrix that the file holds; None for all of them. Everything else
            describes the whole matrix.
        points: Number of points, each with a matrix of its own, which are stacked vertically in
            `shape`; `rows` and `columns` describe the matrix of one point. None for one point.
        drawn_vectors: The vectors of a product as what they are drawn from; None if they are in
            `vectors`.
        selection: Which rows and columns of a larger matrix these are; None for a whole matrix.
        is_ragged: Whether there are matrices of different sizes, stored one after another: of many
            points, of which `rows` and `columns` hold the tensors, point after point, equally many
            of each; or diagonal blocks.
        structure: Which entries of the matrix the file holds: ``full``, all of them; those of its
            ``diagonal``, as a matrix of one column, whose tensor has this name, while the probes
            are those of the whole matrix; or its diagonal ``blocks``, whose tensors `rows` and
            `columns` hold, block after block.
        groups: How many tensors each diagonal block has; empty for other structures.
        block_lines: Number of lines of a block, if known; the tile is chosen to fit it. It is not
            stored.

    Raises:
        ResultError: If the fields contradict each other.
    """

    operation: str
    strategy: str
    function: str
    fingerprint: str
    axis: Axis
    rows: tuple[TensorSpec, ...]
    columns: tuple[TensorSpec, ...]
    dtype: str
    rows_are_tuple: bool
    columns_are_tuple: bool
    point: Mapping[str, np.ndarray]
    value: Mapping[str, np.ndarray]
    vectors: Mapping[str, np.ndarray]
    configuration: str
    provenance: Mapping[str, str | int | float | bool]
    tile: tuple[int, int] | None = None
    compression: Compression = "none"
    probes: Probes | None = None
    shard: Shard | None = None
    points: int | None = None
    selection: Selection | None = None
    is_ragged: bool = False
    drawn_vectors: DrawnVectors | None = None
    structure: str = FULL
    groups: tuple[int, ...] = ()
    block_lines: int | None = None

    def __post_init__(self) -> None:
        if self.points is not None and (self.points < 1 or self.axis != "rows"):
            raise ResultError(
                f"The matrices of many points arrive by rows, of one point at least, not by "
                f"{self.axis} of {self.points}."
            )
        if self.points is not None and self.tile is not None:
            raise ResultError("The tile of many points cannot be set; valid is None.")
        if self.structure == BLOCKS:
            self._require_blocks()
        elif self.is_ragged:
            self._require_ragged()
        require_choice("operation", self.operation, MATRICES + PRODUCTS)
        require_choice("axis", self.axis, tuple(Axis))
        object.__setattr__(self, "axis", Axis(self.axis))
        require_choice("compression", self.compression, ("none", "gzip"))
        require_choice("structure", self.structure, STRUCTURES)
        if self.structure == DIAGONAL:
            self._require_diagonal()
        _require_numeric(self.dtype)
        for axis, tensors in (("rows", self.rows), ("columns", self.columns)):
            count = len(tensors) // (self.points or 1) if self.is_ragged else len(tensors)
            _require_unique(axis, [tensor.name for tensor in tensors[:count]])
        if self.tile is not None and min(self.tile) < 1:
            raise ResultError(f"A tile has at least one row and one column, not {self.tile}.")
        if self.probes is not None:
            require_fitting(self.probes, multiplied_shape(self.shape, self.structure))
        if self.selection is not None:
            self.selection.require_fitting(self.rows, self.columns)
        if self.drawn_vectors is not None and self.drawn_vectors.count != self.shape[0]:
            raise ResultError(f"{self.drawn_vectors} do not fit the {self.shape[0]} rows.")
        length = self.axis.lines(self.shape)
        if self.shard is not None and self.shard.stop > length:
            raise ResultError(f"The shard {self.shard} ends beyond the {length} {self.axis}.")

    def _require_diagonal(self) -> None:
        is_part = self.shard is not None or self.selection is not None or self.points is not None
        is_column = [(each.name, each.shape) for each in self.columns] == [(DIAGONAL, ())]
        is_square = self.operation in SYMMETRIC
        if is_part or not (is_column and is_square) or self.axis != Axis.ROWS:
            raise ResultError(
                "A diagonal is that of a whole square matrix, and arrives by rows of one column."
            )

    def _require_blocks(self) -> None:
        is_part = self.shard is not None or self.selection is not None or self.points is not None
        fits = self.rows == self.columns and are_groups_of(self.rows, self.groups)
        is_square = self.operation in SYMMETRIC and self.is_ragged and fits
        if is_part or not is_square or self.axis != Axis.ROWS or self.compression != "none":
            raise ResultError(
                "Diagonal blocks are those of a whole square matrix, each of some of its tensors; "
                "they arrive by rows, and have neither shards nor compression."
            )

    def _require_ragged(self) -> None:
        tables = [self.rows, self.columns]
        if self.selection is not None:
            tables += [self.selection.whole_rows, self.selection.whole_columns]
        if not self.points or any(not table or len(table) % self.points for table in tables):
            raise ResultError(
                f"The tensors of the rows and columns are not those of {self.points} points."
            )
        if self.shard is not None or self.compression != "none":
            raise ResultError(
                "The matrices of points of different sizes have neither shards nor compression."
            )

    @property
    def sizes(self) -> Sizes:
        """The numbers of rows and of columns of each of several matrices of different sizes."""
        if self.structure == BLOCKS:
            return sizes_of_groups(self.rows, self.groups)
        return sizes_of(self.rows, self.columns, self.points or 1)

    @property
    def entries(self) -> int:
        """Number of entries that the file holds."""
        if self.is_ragged:
            heights, widths = self.sizes
            return int((heights * widths).sum())
        return math.prod(self.stored_shape)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix: (elements of all row tensors, elements of all column tensors).

        With many points the rows are those of all points, point after point. If they have different
        sizes, and of diagonal blocks, the columns are those of the widest.
        """
        if self.is_ragged:
            heights, widths = self.sizes
            return int(heights.sum()), int(widths.max(initial=0))
        rows, columns = (sum(t.size for t in axis) for axis in (self.rows, self.columns))
        return rows * (self.points or 1), columns

    @property
    def held(self) -> range:
        """The lines of the block axis that the file holds, counted in the whole matrix."""
        if self.shard is not None:
            return range(self.shard.start, self.shard.stop)
        return range(self.axis.lines(self.shape))

    @property
    def lines(self) -> int:
        """Number of lines that the file holds on the axis along which blocks arrive."""
        return len(self.held)

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Shape of the matrix in the file: that of the whole matrix, or of the shard's lines."""
        return self.axis.shape(self.lines, self.axis.across(self.shape))


def are_groups_of(tensors: tuple[TensorSpec, ...], groups: tuple[int, ...]) -> bool:
    """Return whether groups of adjacent tensors, of so many each, are all tensors of a table."""
    return bool(groups) and min(groups) > 0 and sum(groups) == len(tensors)


def multiplied_shape(shape: tuple[int, int], structure: str) -> tuple[int, int]:
    """Return the shape of the matrix that the probes multiply, from that of the file's matrix."""
    return (shape[0], shape[0]) if structure == DIAGONAL else shape


def _require_numeric(dtype: str) -> None:
    try:
        kind = np.dtype(dtype).kind
    except TypeError:
        kind = ""
    if kind not in "fciu" or not kind:
        raise ResultError(f"A matrix cannot be stored as {dtype!r}; convert it to a numpy dtype.")


def _require_unique(axis: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ResultError(f"Two tensors of the {axis} share the name {repeated[0]!r}.")
