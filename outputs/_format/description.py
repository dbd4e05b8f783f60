"""Everything known about a result before its first block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from outputs._errors import ResultError
from outputs._format.axes import Axis, Shard, TensorSpec
from outputs._format.probes import Probes, require_fitting
from outputs._format.validation import require_choice

Compression = Literal["none", "gzip"]

MATRICES = ("jacobian", "hessian")
PRODUCTS = ("vjp", "jvp", "vhp", "hvp")


@dataclass(frozen=True)
class ResultDescription:
    """What is known before the first block; it is laid out in the file and sealed.

    Attributes:
        operation: ``jacobian``, ``hessian``, ``vjp``, ``jvp``, ``vhp`` or ``hvp``; also the name
            of the matrix in the file.
        strategy: How the blocks are computed.
        function: Reference of the function, for example ``package.module:name``.
        fingerprint: Hash of what determines the numbers.
        axis: The axis along which blocks arrive.
        rows: The tensors of the rows one after the other; for the products one
            ``TensorSpec("vectors", (count,), "int64")``.
        columns: The tensors of the columns one after the other.
        dtype: Stored dtype of the matrix, one that numpy has.
        rows_are_tuple: Whether the function returned a tuple (Hessian: took one).
        columns_are_tuple: Whether the columns' tensors came as a tuple.
        point: The inputs, by name.
        value: The function's value there, by name.
        vectors: The vectors of a product, by name.
        configuration: The composed configuration as YAML.
        provenance: Versions, device, seeds, commit, host, time of creation and the like.
        tile: Shape of the HDF5 chunk; None lets the layout choose.
        compression: ``none`` or ``gzip``.
        probes: Products by which the matrix can be verified; None without.
        shard: Which lines of the matrix the file holds; None stands for all. Everything else
            describes the whole matrix.
        points: Of how many points each has a matrix of its own, which stand under one another in
            `shape`; `rows` and `columns` describe that of one point. None stands for one point.
        block_lines: How many lines a block has, where that is known: the tile is chosen by it. It
            is not stored.

    Raises:
        ResultError: If the description contradicts itself.
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
    block_lines: int | None = None

    def __post_init__(self) -> None:
        if self.points is not None and (self.points < 1 or self.axis != "rows"):
            raise ResultError(
                f"The matrices of many points arrive by rows, of one point at least, not by "
                f"{self.axis} of {self.points}."
            )
        if self.points is not None and self.tile is not None:
            raise ResultError("The tile of many points is not chosen; valid is None.")
        require_choice("operation", self.operation, MATRICES + PRODUCTS)
        require_choice("axis", self.axis, tuple(Axis))
        object.__setattr__(self, "axis", Axis(self.axis))
        require_choice("compression", self.compression, ("none", "gzip"))
        _require_numeric(self.dtype)
        for axis, tensors in (("rows", self.rows), ("columns", self.columns)):
            _require_unique(axis, [tensor.name for tensor in tensors])
        if self.tile is not None and min(self.tile) < 1:
            raise ResultError(f"A tile has at least one row and one column, not {self.tile}.")
        if self.probes is not None:
            require_fitting(self.probes, self.shape)
        length = self.shape[0 if self.axis == "rows" else 1]
        if self.shard is not None and self.shard.stop > length:
            raise ResultError(f"The shard {self.shard} ends behind the {length} {self.axis}.")

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix: (elements of all row tensors, elements of all column tensors).

        With many points all their rows, point after point.
        """
        rows, columns = (sum(t.size for t in axis) for axis in (self.rows, self.columns))
        return rows * (self.points or 1), columns

    @property
    def held(self) -> range:
        """The lines of the block axis that the file holds, counted in the whole matrix."""
        if self.shard is not None:
            return range(self.shard.start, self.shard.stop)
        return range(self.shape[0] if self.axis == "rows" else self.shape[1])

    @property
    def lines(self) -> int:
        """Number of lines that the file holds on the axis along which blocks arrive."""
        return len(self.held)

    @property
    def stored_shape(self) -> tuple[int, int]:
        """Shape of the matrix in the file: that of the whole matrix, or of the shard's lines."""
        rows, columns = self.shape
        return (self.lines, columns) if self.axis == "rows" else (rows, self.lines)


def _require_numeric(dtype: str) -> None:
    try:
        kind = np.dtype(dtype).kind
    except TypeError:
        kind = ""
    if kind not in "fciu" or not kind:
        raise ResultError(
            f"A matrix cannot be stored as {dtype!r}; widen it to a dtype that numpy has."
        )


def _require_unique(axis: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ResultError(f"Two tensors of the {axis} share the name {repeated[0]!r}.")
