"""Reading a finished result."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from outputs._errors import ResultError, ResultNotFoundError, UnfinishedResultError
from outputs._format import names as names_
from outputs._format import reading as layout
from outputs._format.axes import TensorSpec
from outputs._format.ledger import Ledger
from outputs._format.probes import Probes
from outputs._format.stacked_matrices import Matrix
from outputs._format.validation import scalar
from outputs._format.virtual_sources import require_sources
from outputs._optional import load
from outputs._reading.views.dask_array import dask_array
from outputs._reading.views.linear_operator import linear_operator
from outputs._reading.views.torch_tensors import nested_tensors
from outputs._storage.files import open_file, parsed, part_path, translated

if TYPE_CHECKING:
    import dask.array
    import xarray
    from scipy.sparse.linalg import LinearOperator


def open_result(path: str | os.PathLike[str], *, allow_partial: bool = False) -> Result:
    """Opens a result; a context manager that reads only what is asked for.

    Args:
        path: The result; with ``allow_partial`` either of its names, finished or ``.part``.
        allow_partial: Whether an unfinished result may be read, or a shard. ``Result.mask`` then
            says which lines are there; the others hold anything.

    Raises:
        ResultNotFoundError: If there is no file.
        UnfinishedResultError: If there is only a ``.part``, or blocks are missing, or it is a
            shard of a matrix, and ``allow_partial`` is not set.
        ResultError: If the file is not ours, of a newer format version, truncated or damaged.
    """
    path = Path(path).absolute()
    found = path if path.exists() or not part_path(path).exists() else part_path(path)
    result = Result(found)
    if not allow_partial and (found != path or not result.complete):
        with result:
            raise UnfinishedResultError(f"{path} is unfinished: {result.progress}.")
    if not allow_partial and result.shard is not None:
        with result:
            result.require_whole()
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
        shape: (rows, columns) of the matrix in the file, or (points, rows, columns).
        matrix_shape: The same with two dimensions: the matrices of many points stand under one
            another.
        point_count: Of how many points there is a matrix each; None where there is one point.
        shard: Which part of a larger matrix it is; None for a whole one.
        dtype: Stored dtype of the matrix.
        rows: The tensors of the rows.
        columns: The tensors of the columns.
        complete: Whether every line is there.
        blocks: Number of committed blocks.
        progress: How much is committed, as part of a sentence.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise ResultNotFoundError(f"There is no file {path}.")
        self.path = path
        self._file = open_file(path, "r")
        try:
            with parsed(path):
                layout.require_ours(self._file, path)
                self._read_header()
        except BaseException:
            self._file.close()
            raise

    def _read_header(self) -> None:
        self.operation = layout.read_attribute(self._file, "operation")
        self.strategy = layout.read_attribute(self._file, "strategy")
        self.function = layout.read_attribute(self._file, "function")
        self.fingerprint = layout.read_attribute(self._file, "fingerprint")
        self.compression = layout.read_attribute(self._file, "compression")
        self.axis = layout.axis_of(self._file)
        self._rows_are_tuple = bool(scalar(self._file, "rows_are_tuple"))
        self._columns_are_tuple = bool(scalar(self._file, "columns_are_tuple"))
        if layout.is_sparse(self._file):
            raise ResultError(
                f"{self.path} holds a sparse matrix; open_sparse_result() opens it, and "
                "outputs.show, outputs.verify and outputs.plot know it."
            )
        self._matrix: Matrix = layout.matrix_of(self._file)
        if isinstance(self._matrix, h5py.Dataset) and self._matrix.is_virtual:
            require_sources(self._matrix, self.path)
        self.point_count = layout.read_points(self._file)
        self.matrix_shape: tuple[int, int] = self._matrix.shape
        self.shape: tuple[int, ...] = self._dataset.shape
        self.dtype: np.dtype = self._matrix.dtype
        self.rows = layout.read_table(self._file, names_.Names.ROWS)
        self.columns = layout.read_table(self._file, names_.Names.COLUMNS)
        sizes = layout.whole_shape(self._file)
        self.shard = layout.read_shard(self._file)
        across = 1 if self.axis == "rows" else 0
        is_whole = self.shard is None
        shape = self.matrix_shape
        if sizes[across] != shape[across] or (is_whole and sizes != shape):
            raise ResultError(f"{self.path} is damaged: its tables do not fit its matrix.")
        lines = shape[0 if self.axis == "rows" else 1]
        ledger = Ledger(layout.ledger_of(self._file, lines), lines)
        self._ledger = ledger
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

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process goes the path; the file is opened again there.
        return open_result, (self.path.absolute(),)

    def __repr__(self) -> str:
        *points, rows, columns = self.shape
        many = f"{points[0]} points of " if points else ""
        return (
            f"<Result {self.operation} of {self.function}: {many}{rows} x {columns} {self.dtype}, "
            f"{self.strategy}, {self.path}>"
        )

    def __getitem__(self, key: Any) -> np.ndarray:
        """Reads a slice of the matrix, and nothing else.

        Raises:
            ResultError: If the file is closed or damaged.
        """
        self._require_open()
        with translated(self.path):
            return self._dataset[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)

    def block(self, row: str, column: str) -> np.ndarray:
        """The entries of one row tensor by one column tensor.

        Args:
            row: Name of the row tensor; ``"vectors"`` for a product.
            column: Name of the column tensor.

        Returns:
            Of natural shape: the row tensor's shape followed by the column tensor's, with a
            leading dimension over points where there are many.

        Raises:
            ResultError: If there is no tensor of such a name, or the file is damaged.
        """
        self.require_whole()
        above, row_spec = _find("row", self.rows, row)
        left, column_spec = _find("column", self.columns, column)
        values = self[..., above : above + row_spec.size, left : left + column_spec.size]
        return values.reshape(values.shape[:-2] + row_spec.shape + column_spec.shape)

    @property
    def mask(self) -> np.ndarray:
        """Which lines of the block axis are there, bool of shape (rows,) or (columns,).

        With many points (points * rows,): the rows of all of them.
        """
        lines = self.matrix_shape[0 if self.axis == "rows" else 1]
        mask = np.ones(lines, bool)
        for missing in self._ledger.missing():
            mask[missing.start : missing.stop] = False
        return mask

    @property
    def probes(self) -> Probes | None:
        """Products by which the matrix can be verified; None in a file without."""
        self._require_open()
        with parsed(self.path):
            probes = layout.read_probes(self._file)
        if probes is None or self.shard is None:
            return probes
        return probes.of_shard(layout.axis_of(self._file), self.shard)

    def as_torch(self) -> Any:
        """The whole result as ``torch.autograd.functional`` returns it.

        Tensors on the CPU, each of its column tensor's dtype: one tensor, a tuple, or a tuple of
        tuples by rows and columns. A product gives tensors of natural shape, with a leading
        dimension when there are several vectors.

        Raises:
            ResultError: If the file is closed or damaged.
        """
        self.require_whole()
        return nested_tensors(self)

    def as_numpy(self) -> np.ndarray:
        """The whole matrix in memory, of shape (rows, columns) or (points, rows, columns).

        Raises:
            ResultError: If the file is closed or damaged.
        """
        return self[...]

    def as_xarray(self) -> xarray.Dataset:
        """A dataset of xarray; the matrix is read when it is needed, while the result is open.

        Returns:
            The matrix under the name of its operation with dimensions ("row", "column"), before
            them "point_number" where there are many, the
            tables as ``row_name``, ``row_start`` and so on over ("row_tensor",), likewise for the
            columns, the arrays as ``point_<name>``, ``value_<name>``, ``vectors_<name>``; as
            attributes what the result is.

        Raises:
            MissingDependencyError: If xarray is not installed.
            ResultError: If the file is closed, incomplete or damaged.
        """
        load("xarray", "reading", "as_xarray()")
        from outputs._reading.views.xarray_dataset import xarray_dataset

        self.dataset()
        return xarray_dataset(self)

    def as_dask(self) -> dask.array.Array:
        """A lazy array of dask; chunks are bands of rows, or whole tiles of a tiled matrix.

        The result has to stay open. Workers in other processes open the file for themselves.

        Raises:
            MissingDependencyError: If dask is not installed.
            ResultError: If the file is closed, incomplete or damaged.
        """
        return dask_array(self)

    def as_linear_operator(self) -> LinearOperator:
        """An operator for ``scipy.sparse.linalg`` that multiplies without loading the matrix.

        Each product, with one vector or with many, by the matrix or by its adjoint, reads every
        byte once, in pieces of about 4 MiB. The result has to stay open.

        Returns:
            Of shape (rows, columns), with ``matvec``, ``rmatvec``, ``matmat`` and ``rmatmat``.

        Raises:
            MissingDependencyError: If SciPy is not installed.
            ResultError: If the file is closed, incomplete or damaged, by the products as well; or
                there is a matrix for each of many points.
        """
        self.require_one_point("A linear operator")
        return linear_operator(self)

    def dataset(self) -> h5py.Dataset:
        """The complete matrix as h5py has it, for code that reads in its own way.

        Raises:
            ResultError: If the file is closed.
            UnfinishedResultError: If blocks are missing, or it is a shard.
        """
        self._require_open()
        self.require_whole()
        if not self.complete:
            raise UnfinishedResultError(f"{self.path} is unfinished: {self.progress}.")
        return self._dataset

    def matrix(self) -> Matrix:
        """The same with two dimensions: the matrices of many points stand under one another.

        Raises:
            ResultError: As of `dataset`.
        """
        self.dataset()
        return self._matrix

    def require_one_point(self, purpose: str) -> None:
        """Checks that there is one matrix.

        Args:
            purpose: What it is needed for, as the subject of a sentence.

        Raises:
            ResultError: If there is one for each of many points.
        """
        if self.point_count is not None:
            raise ResultError(
                f"{purpose} takes one matrix, and {self.path} holds those of {self.point_count} "
                "points; result[0] is the first of them, as_xarray() all."
            )

    @property
    def _dataset(self) -> h5py.Dataset:
        matrix = self._matrix
        return matrix if isinstance(matrix, h5py.Dataset) else matrix.dataset

    @property
    def ndim(self) -> int:
        """Two, rows and columns, or three with many points."""
        return len(self.shape)

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
        """Shape of a tile of `matrix()`; None for a contiguous matrix."""
        self._require_open()
        return self._matrix.chunks

    @property
    def points(self) -> dict[str, np.ndarray]:
        """The inputs, by name."""
        return self._arrays(names_.Names.POINT)

    @property
    def value(self) -> dict[str, np.ndarray]:
        """The function's value, by name."""
        return self._arrays(names_.Names.VALUE)

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """The vectors of a product, by name."""
        return self._arrays(names_.Names.VECTORS)

    @property
    def configuration(self) -> str:
        """The composed configuration, YAML."""
        self._require_open()
        with parsed(self.path):
            return layout.read_text(self._file, names_.Names.CONFIGURATION)

    @property
    def provenance(self) -> dict[str, str | int | float | bool]:
        """Versions, device, seeds, commit and the like."""
        self._require_open()
        with parsed(self.path):
            return layout.read_provenance(self._file)

    @property
    def execution(self) -> dict[str, Any]:
        """The execution record; empty before the result is finished."""
        self._require_open()
        with parsed(self.path):
            return layout.read_execution(self._file)

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        self._require_open()
        with parsed(self.path):
            return layout.read_arrays(self._file, name)

    def require_whole(self) -> None:
        """Checks that the file holds a whole matrix.

        Raises:
            UnfinishedResultError: If it is a shard.
        """
        if self.shard is not None:
            raise UnfinishedResultError(
                f"{self.path} is shard {self.shard} of a matrix, its {self.axis} "
                f"{self.shard.start}:{self.shard.stop}; python -m outputs.merge puts the shards "
                "together."
            )

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
