"""Everything known about a result before its first block."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from outputs._errors import ResultError

Axis = Literal["rows", "columns"]
Compression = Literal["none", "gzip"]

MATRICES = ("jacobian", "hessian")
PRODUCTS = ("vjp", "jvp", "vhp", "hvp")

Pairing = Literal["bilinear", "real inner product"]
PAIRINGS = ("bilinear", "real inner product")


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the tuple whose flattened elements make up an axis.

    Attributes:
        name: The tensor's name, for example a parameter name; unique on its axis.
        shape: Natural shape; ``()`` for a scalar.
        dtype: The tensor's own dtype in numpy's or torch's spelling, for example ``"bfloat16"``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Shard:
    """The part of a matrix that one file of several holds: neighbouring lines of its block axis.

    Attributes:
        index: Which of the parts, from 0.
        count: How many parts the matrix was divided into.
        start: First line, counted in the whole matrix.
        stop: Line after its last.

    Raises:
        ResultError: If it contradicts itself.
    """

    index: int
    count: int
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ResultError(f"There is no shard {self.index} of {self.count}.")
        if not 0 <= self.start < self.stop:
            raise ResultError(f"A shard holds a range of lines, not {self.start}:{self.stop}.")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True, eq=False)
class Probes:
    """Vectors and their products with the matrix M, computed by another route than its blocks.

    Attributes:
        right: Of shape (columns,), float or complex; None without ``right_product``.
        right_product: Of shape (rows,): what M makes of ``right``.
        left: Of shape (rows,), float or complex; None without ``left_product``.
        left_product: Of shape (columns,): what ``left`` makes of M.
        tolerance: The largest honest error of a product's entry relative to |line| |vector|, the
            entry itself and the typical entry, added up.
        pairing: ``bilinear``: ``M @ right`` and ``left @ M``; ``real inner product``:
            ``(M.conj() @ right).real`` and ``(left.conj() @ M).real``.

        floor: Added to what a product's error is measured against: how large products are of
            which rounding alone is left, as where a derivative is zero by cancellation.

    Raises:
        ResultError: If a vector comes without its product, or is none.
    """

    right: np.ndarray | None
    right_product: np.ndarray | None
    left: np.ndarray | None
    left_product: np.ndarray | None
    tolerance: float
    pairing: Pairing = "bilinear"
    floor: float = 0.0

    def __post_init__(self) -> None:
        _require_choice("pairing", self.pairing, PAIRINGS)
        if not 0 <= self.tolerance < math.inf:
            raise ResultError(f"A tolerance is finite and not negative, not {self.tolerance}.")
        if not 0 <= self.floor < math.inf:
            raise ResultError(f"A floor is finite and not negative, not {self.floor}.")
        for side in ("right", "left"):
            vector, product = getattr(self, side), getattr(self, f"{side}_product")
            if (vector is None) != (product is None):
                raise ResultError(f"The {side} probe and its product come together or not at all.")
        for name, array in self.arrays().items():
            if array.ndim != 1 or array.dtype.kind not in "fc":
                raise ResultError(
                    f"The probe {name} is a vector of floating-point or complex numbers, not "
                    f"{array.dtype} of shape {array.shape}."
                )

    def arrays(self) -> dict[str, np.ndarray]:
        """The vectors that there are, by name."""
        names = ("right", "right_product", "left", "left_product")
        return {name: a for name in names if (a := getattr(self, name)) is not None}

    def of_shard(self, axis: Axis, shard: Shard) -> Probes:
        """The probe that the lines of a shard can be held against.

        Of the other one only the sum over all shards is known.

        Args:
            axis: The axis along which the matrix is divided.
            shard: The part.
        """
        lines = slice(shard.start, shard.stop)
        if axis == "rows":
            product = None if self.right_product is None else self.right_product[lines]
            return replace(self, right_product=product, left=None, left_product=None)
        product = None if self.left_product is None else self.left_product[lines]
        return replace(self, left_product=product, right=None, right_product=None)


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
        _require_choice("operation", self.operation, MATRICES + PRODUCTS)
        _require_choice("axis", self.axis, ("rows", "columns"))
        _require_choice("compression", self.compression, ("none", "gzip"))
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


def require_fitting(probes: Probes, shape: tuple[int, int]) -> None:
    """Checks that probes have the lengths of a matrix's axes.

    Raises:
        ResultError: If one has another length.
    """
    rows, columns = shape
    lengths = {"right": columns, "right_product": rows, "left": rows, "left_product": columns}
    for name, array in probes.arrays().items():
        if len(array) != lengths[name]:
            raise ResultError(
                f"The probe {name} has {len(array)} entries; a matrix of {rows} x {columns} takes "
                f"{lengths[name]}."
            )


def _require_choice(what: str, given: str, choices: tuple[str, ...]) -> None:
    if given not in choices:
        raise ResultError(f"The {what} is one of {', '.join(choices)}, not {given!r}.")


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
