"""Reading a finished result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from outputs import _layout as layout
from outputs._description import TensorSpec
from outputs._errors import ResultError, ResultNotFoundError, UnfinishedResultError
from outputs._files import open_file, part_path, translated
from outputs._ledger import Ledger
from outputs._nesting import nested_tensors


def open_result(path: str | os.PathLike[str]) -> Result:
    """Opens a finished result; a context manager that reads only what is asked for.

    Raises:
        ResultNotFoundError: If there is no file.
        UnfinishedResultError: If there is only a ``.part``, or blocks are missing.
        ResultError: If the file is not ours, of a newer format version, truncated or damaged.
    """
    path = Path(path).absolute()
    if not path.exists() and part_path(path).exists():
        with Result(part_path(path)) as result:
            raise UnfinishedResultError(f"{path} is unfinished: {result.progress}.")
    result = Result(path)
    if not result.complete:
        with result:
            raise UnfinishedResultError(f"{path} is unfinished: {result.progress}.")
    return result


class Result:
    """A result file, open for reading.

    Indexing, ``result[rows, columns]``, reads that slice of the matrix as numpy would.

    Attributes:
        path: The file.
        operation: ``jacobian``, ``hessian``, ``vjp``, ``jvp``, ``vhp`` or ``hvp``.
        strategy: How the blocks were computed.
        function: Reference of the function.
        fingerprint: Hash of what determines the numbers.
        axis: The axis along which blocks arrived.
        compression: ``none`` or ``gzip``.
        shape: (rows, columns) of the matrix.
        dtype: Stored dtype of the matrix.
        rows: The tensors of the rows.
        columns: The tensors of the columns.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise ResultNotFoundError(f"There is no file {path}.")
        self.path = path
        self._file = open_file(path, "r")
        try:
            with translated(path):
                layout.require_ours(self._file, path)
                self._read_header()
        except BaseException:
            self._file.close()
            raise

    def _read_header(self) -> None:
        attributes: dict[str, Any] = dict(self._file.attrs)
        self.operation: str = attributes["operation"]
        self.strategy: str = attributes["strategy"]
        self.function: str = attributes["function"]
        self.fingerprint: str = attributes["fingerprint"]
        self.compression: str = attributes["compression"]
        self.axis = layout.axis_of(self._file)
        self._rows_are_tuple = bool(attributes["rows_are_tuple"])
        self._columns_are_tuple = bool(attributes["columns_are_tuple"])
        self._matrix: h5py.Dataset = layout.matrix_of(self._file)
        self.shape: tuple[int, int] = self._matrix.shape
        self.dtype: np.dtype = self._matrix.dtype
        self.rows = layout.read_table(self._file, layout.Names.ROWS)
        self.columns = layout.read_table(self._file, layout.Names.COLUMNS)
        lines = self.shape[0 if self.axis == "rows" else 1]
        ledger = Ledger(layout.dataset(self._file, layout.Names.LEDGER), lines)
        self.blocks = len(ledger.committed)
        self.complete = 0 in self.shape or not ledger.missing()
        self.progress = (
            f"{ledger.lines_committed} of {lines} {self.axis} are committed in {self.path}"
        )

    def __enter__(self) -> Result:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __repr__(self) -> str:
        rows, columns = self.shape
        return (
            f"<Result {self.operation} of {self.function}: {rows} x {columns} {self.dtype}, "
            f"{self.strategy}, {self.path}>"
        )

    def __getitem__(self, key: Any) -> np.ndarray:
        """Reads a slice of the matrix, and nothing else.

        Raises:
            ResultError: If the file is closed or damaged.
        """
        self._require_open()
        with translated(self.path):
            return self._matrix[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)

    def block(self, row: str, column: str) -> np.ndarray:
        """The entries of one row tensor by one column tensor.

        Args:
            row: Name of the row tensor; ``"vectors"`` for a product.
            column: Name of the column tensor.

        Returns:
            Of natural shape: the row tensor's shape followed by the column tensor's.

        Raises:
            ResultError: If there is no tensor of such a name, or the file is damaged.
        """
        above, row_spec = _find("row", self.rows, row)
        left, column_spec = _find("column", self.columns, column)
        values = self[above : above + row_spec.size, left : left + column_spec.size]
        return values.reshape(row_spec.shape + column_spec.shape)

    def as_torch(self) -> Any:
        """The whole result as ``torch.autograd.functional`` returns it.

        Tensors on the CPU, each of its column tensor's dtype: one tensor, a tuple, or a tuple of
        tuples by rows and columns. A product gives tensors of natural shape, with a leading
        dimension when there are several vectors.

        Raises:
            ResultError: If the file is closed or damaged.
        """
        return nested_tensors(self)

    @property
    def rows_are_tuple(self) -> bool:
        """Whether the rows' tensors came as a tuple."""
        return self._rows_are_tuple

    @property
    def columns_are_tuple(self) -> bool:
        """Whether the columns' tensors came as a tuple."""
        return self._columns_are_tuple

    @property
    def stored_bytes(self) -> int:
        """Bytes that the matrix takes in the file."""
        self._require_open()
        return self._matrix.id.get_storage_size()

    @property
    def tile(self) -> tuple[int, int] | None:
        """Shape of a tile; None for a contiguous matrix."""
        self._require_open()
        return self._matrix.chunks

    @property
    def points(self) -> dict[str, np.ndarray]:
        """The inputs, by name."""
        return self._arrays(layout.Names.POINT)

    @property
    def value(self) -> dict[str, np.ndarray]:
        """The function's value, by name."""
        return self._arrays(layout.Names.VALUE)

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """The vectors of a product, by name."""
        return self._arrays(layout.Names.VECTORS)

    @property
    def configuration(self) -> str:
        """The composed configuration, YAML."""
        self._require_open()
        with translated(self.path):
            return layout.read_text(self._file, layout.Names.CONFIGURATION)

    @property
    def provenance(self) -> dict[str, str | int | float | bool]:
        """Versions, device, seeds, commit and the like."""
        self._require_open()
        with translated(self.path):
            return layout.read_provenance(self._file)

    @property
    def execution(self) -> dict[str, Any]:
        """The execution record; empty before the result is finished."""
        self._require_open()
        with translated(self.path):
            return layout.read_execution(self._file)

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        self._require_open()
        with translated(self.path):
            return layout.read_arrays(self._file, name)

    def _require_open(self) -> None:
        if not self._file:
            raise ResultError(f"{self.path} has been closed.")


def _find(what: str, tensors: tuple[TensorSpec, ...], name: str) -> tuple[int, TensorSpec]:
    start = 0
    for tensor in tensors:
        if tensor.name == name:
            return start, tensor
        start += tensor.size
    names = ", ".join(tensor.name for tensor in tensors)
    raise ResultError(f"There is no {what} tensor {name!r}; there are: {names}.")
