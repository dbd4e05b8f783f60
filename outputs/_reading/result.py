"""Read a dense result, finished or partial."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from outputs._errors import ResultError, UnfinishedResultError
from outputs._format.axes import find_tensor
from outputs._format.description import BLOCKS, FULL, ResultDescription
from outputs._format.ledger import Ledger
from outputs._format.probes import Probes
from outputs._format.ragged_matrices import RaggedMatrices
from outputs._format.reading import (
    axis_of,
    is_sparse,
    ledger_of,
    matrix_of,
    read_description,
    read_points,
    read_shard,
    whole_shape,
)
from outputs._format.stacked_matrices import Matrix
from outputs._format.tables import read_attribute
from outputs._format.validation import scalar
from outputs._format.virtual_sources import require_sources
from outputs._optional import load
from outputs._reading.diagonal_blocks import OfBlocks
from outputs._reading.point_matrix import OfPoints
from outputs._reading.presentation.drawing import SPECTRUM_VALUES, dense_figure
from outputs._reading.presentation.page import dense_page
from outputs._reading.result_file import ResultFile
from outputs._reading.views.dask_array import dask_array
from outputs._reading.views.linear_operator import linear_operator
from outputs._reading.views.torch_tensors import nested_tensors
from outputs._storage.files import part_path, translated

if TYPE_CHECKING:
    import dask.array
    import xarray
    from matplotlib.figure import Figure
    from scipy.sparse.linalg import LinearOperator


def open_result(path: str | os.PathLike[str], *, allow_partial: bool = False) -> Result:
    """Open a result; a context manager that reads only what the caller indexes.

    Args:
        path: The result; with ``allow_partial`` either of its names, finished or ``.part``.
        allow_partial: Whether an unfinished result, or a shard, may be read. ``Result.mask`` then
            says which lines are present; the others hold arbitrary values.

    Raises:
        ResultNotFoundError: If there is no file.
        UnfinishedResultError: If there is only a ``.part``, or blocks are missing, or it is a
            shard of a matrix, and ``allow_partial`` is not set.
        ResultError: If the file is not a result of this format, of a newer format version,
            truncated or damaged.
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


class Result(ResultFile, OfPoints, OfBlocks):
    """A result file, open for reading.

    Indexing, ``result[rows, columns]``, reads that slice of the matrix as numpy would.

    Attributes:
        path: The file.
        operation: ``jacobian``, ``hessian``, ``vjp``, ``jvp``, ``vhp`` or ``hvp``.
        strategy: Name of the strategy that computed the blocks.
        function: Reference of the function.
        fingerprint: Hash of the options that determine the numbers.
        axis: The axis along which blocks arrived.
        compression: ``none`` or ``gzip``.
        shape: (rows, columns) of the matrix in the file, or (points, rows, columns).
        matrix_shape: The same with two dimensions: the matrices of many points are stacked
            vertically.
        point_count: Number of points, each with a matrix of its own; None for a single point.
        is_ragged: Whether there are matrices of different sizes, of many points or as diagonal
            blocks; shapes are then of all rows, padded to the longest.
        shard: The part of a larger matrix that the file holds; None for a whole matrix.
        dtype: Stored dtype of the matrix.
        rows: The tensors of the rows.
        columns: The tensors of the columns.
        rows_are_tuple: Whether the rows' tensors came as a tuple.
        columns_are_tuple: Whether the columns' tensors came as a tuple.
        complete: Whether every line is present.
        blocks: Number of committed blocks.
        progress: How much is committed, as part of a sentence.
    """

    # Also set, for the other modules of this package and not part of the public interface:
    # `ledger`, and `stored_matrix`, which may be incomplete, or a shard; see `matrix()`.

    def _read_header(self) -> None:
        if is_sparse(self.file):
            raise ResultError(
                f"{self.path} holds a sparse matrix; open_sparse_result() opens it, and "
                "outputs.show, outputs.verify and outputs.plot support it."
            )
        super()._read_header()
        self.compression = read_attribute(self.file, "compression")
        self.axis = axis_of(self.file)
        self.rows_are_tuple = bool(scalar(self.file, "rows_are_tuple"))
        self.columns_are_tuple = bool(scalar(self.file, "columns_are_tuple"))
        self.stored_matrix: Matrix = matrix_of(self.file)
        if isinstance(self.stored_matrix, h5py.Dataset) and self.stored_matrix.is_virtual:
            require_sources(self.stored_matrix, self.path)
        self.point_count = read_points(self.file)
        self.matrix_shape: tuple[int, int] = self.stored_matrix.shape
        self.is_ragged = isinstance(self.stored_matrix, RaggedMatrices)
        self.shape: tuple[int, ...] = self.matrix_shape if self.is_ragged else self._dataset.shape
        self.dtype: np.dtype = self.stored_matrix.dtype
        self.shard = read_shard(self.file)
        self._require_tables_fit()
        self._read_ledger()

    def _require_tables_fit(self) -> None:
        sizes = whole_shape(self.file)
        across_fits = self.axis.across(sizes) == self.axis.across(self.matrix_shape)
        is_whole = self.shard is None
        if not across_fits or (is_whole and sizes != self.matrix_shape):
            raise ResultError(f"{self.path} is damaged: its tables do not fit its matrix.")

    def _read_ledger(self) -> None:
        lines = self.axis.lines(self.matrix_shape)
        self.ledger = Ledger(ledger_of(self.file, lines), lines)
        self.blocks = len(self.ledger.committed)
        self.complete = 0 in self.shape or not self.ledger.missing()
        self.progress = (
            f"{self.ledger.lines_committed} of {lines} {self.axis} are committed in {self.path}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Only the path is pickled; the receiving process opens the file again.
        return open_result, (self.path.absolute(),)

    def __repr__(self) -> str:
        *points, rows, columns = self.shape
        many = f"{points[0]} points of " if points else ""
        if self.structure == BLOCKS:
            many = f"{len(self.tensors_of_blocks)} diagonal blocks, "
        elif self.is_ragged:
            many = f"{self.point_count} points of different sizes, "
        elif self.structure != FULL:
            many = f"{self.structure} as "
        return (
            f"<Result, {self._state()}: {self.operation} of {self.function}: "
            f"{many}{rows} x {columns} {self.dtype}, {self.strategy}, {self.path}>"
        )

    def _repr_html_(self) -> str:
        """Return what notebooks show: the state of verification, the facts and a small picture."""
        return dense_page(self)

    def _lines_to_check(self) -> tuple[int, str]:
        lines = 0 if 0 in self.matrix_shape else self.axis.lines(self.matrix_shape)
        return lines, self.axis.value

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a slice of the matrix, and nothing else.

        Raises:
            ResultError: If the file is closed or damaged.
        """
        self._require_open()
        self.require_equal_points("Indexing")
        with translated(self.path):
            return self._dataset[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)

    def block(self, row: str, column: str) -> np.ndarray:
        """Read the entries of one row tensor by one column tensor.

        Args:
            row: Name of the row tensor; ``"vectors"`` for a product.
            column: Name of the column tensor.

        Returns:
            An array of natural shape: the row tensor's shape followed by the column tensor's,
            with a leading dimension over points if there are many. A tensor of which only some
            elements were selected has the shape in the table.

        Raises:
            ResultError: If there is no tensor with that name, the entries are outside of the
                diagonal blocks that the file holds, or it is damaged.
        """
        self.require_whole()
        if self.structure == BLOCKS:
            self.require_one_block(row, column)
            return self.block_of(row).block(row, column)
        self.require_equal_points("result.block()")
        above, row_spec = find_tensor("row", self.rows, row)
        left, column_spec = find_tensor("column", self.columns, column)
        values = self[..., above : above + row_spec.size, left : left + column_spec.size]
        return values.reshape(values.shape[:-2] + row_spec.shape + column_spec.shape)

    @property
    def mask(self) -> np.ndarray:
        """Which lines of the block axis are present, bool of shape (rows,) or (columns,).

        With many points the shape is (points * rows,): the rows of all points.
        """
        mask = np.ones(self.axis.lines(self.matrix_shape), bool)
        for missing in self.ledger.missing():
            mask[missing.start : missing.stop] = False
        return mask

    @property
    def probes(self) -> Probes | None:
        """Products by which the matrix can be verified; None if the file has none.

        A shard has only the probe whose products its own lines determine.
        """
        probes = super().probes
        if probes is None or self.shard is None:
            return probes
        return probes.of_shard(self.axis, self.shard)

    def description(self) -> ResultDescription:
        """Return the description that the file was created with; its arrays are in memory.

        Raises:
            ResultError: If the file is closed or damaged.
        """
        with self._reading():
            return read_description(self.file)

    def as_torch(self) -> Any:
        """Return the whole result in the form that ``torch.autograd.functional`` returns.

        Tensors are on the CPU and have their column tensor's dtype: one tensor, a tuple, or a
        tuple of tuples by rows and columns. A product yields tensors of natural shape, with a
        leading dimension if there are several vectors.

        Raises:
            ResultError: If the file is closed or damaged.
        """
        import torch  # noqa: F401  (here because reading a file must not require torch)

        self.require_whole()
        self.require_all_lines("as_torch()")
        self.require_equal_points("as_torch()")
        # The tables may name a dtype that torch does not have.
        with self._reading():
            return nested_tensors(self)

    def as_numpy(self) -> np.ndarray:
        """Read the whole matrix, of shape (rows, columns) or (points, rows, columns).

        Raises:
            ResultError: If the file is closed or damaged.
        """
        return self[...]

    def as_xarray(self) -> xarray.Dataset:
        """Return an xarray dataset; the matrix is read on demand, while the result is open.

        Returns:
            The matrix under the name of its operation, with dimensions ("row", "column"), preceded
            by "point_number" if there are many points; the tables as ``row_name``, ``row_start``
            and so on over ("row_tensor",), likewise for the columns; the arrays as
            ``point_<name>``, ``value_<name>`` and ``vectors_<name>``; operation, function,
            strategy, fingerprint and provenance as attributes.

        Raises:
            MissingDependencyError: If xarray is not installed.
            ResultError: If the file is closed, incomplete or damaged.
        """
        load("xarray", "reading", "as_xarray()")
        from outputs._reading.views.xarray_dataset import xarray_dataset

        self.dataset()
        self.require_equal_points("as_xarray()")
        return xarray_dataset(self)

    def as_dask(self) -> dask.array.Array:
        """Return a lazy dask array; chunks are bands of rows, or whole tiles of a tiled matrix.

        The result must stay open. Workers in other processes open the file themselves.

        Raises:
            MissingDependencyError: If dask is not installed.
            ResultError: If the file is closed, incomplete or damaged.
        """
        self.require_equal_points("as_dask()")
        return dask_array(self)

    def as_linear_operator(self) -> LinearOperator:
        """Return an operator for ``scipy.sparse.linalg`` that does not load the matrix.

        Each product of the matrix or its adjoint, with one vector or with many, reads every byte
        once, in pieces of about 4 MiB. The result must stay open.

        Returns:
            A ``LinearOperator`` of shape (rows, columns) with ``matvec``, ``rmatvec``, ``matmat``
            and ``rmatmat``.

        Raises:
            MissingDependencyError: If SciPy is not installed.
            ResultError: If the file is closed, incomplete or damaged, or holds one matrix for each
                of many points. The products raise it as well.
        """
        self.require_one_point("A linear operator")
        self.require_all_entries("A linear operator")
        return linear_operator(self)

    def plot(self, *, values: int = SPECTRUM_VALUES) -> Figure:
        """Draw magnitudes, norms and spectrum, as `outputs.plot` does; reads the whole matrix.

        Args:
            values: Number of eigenvalues or singular values to compute for a matrix too large to
                compute all of them; 0 for no spectrum.

        Returns:
            A figure of Matplotlib, which a notebook shows; ``savefig`` writes it to a file.

        Raises:
            MissingDependencyError: If Matplotlib, or SciPy for a large matrix, is not installed.
            ResultError: If the file is closed, incomplete or damaged, or holds one matrix for each
                of many points.
        """
        return dense_figure(self, "result.plot()", values=values)

    def dataset(self) -> h5py.Dataset:
        """Return the complete matrix as an h5py dataset, for code that reads it directly.

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
        """Return the complete matrix with two dimensions; those of many points are stacked.

        Raises:
            ResultError: As `dataset` does.
        """
        self.dataset()
        return self.stored_matrix

    @property
    def _dataset(self) -> h5py.Dataset:
        matrix = self.stored_matrix
        return matrix if isinstance(matrix, h5py.Dataset) else matrix.dataset

    @property
    def ndim(self) -> int:
        """Number of dimensions: two (rows, columns), or three with many points."""
        return len(self.shape)

    @property
    def stored_bytes(self) -> int:
        """Bytes that the matrix occupies in the file."""
        self._require_open()
        return self.stored_matrix.id.get_storage_size()

    @property
    def tile(self) -> tuple[int, int] | None:
        """Shape of a tile of `matrix()`; None for a contiguous matrix."""
        self._require_open()
        return self.stored_matrix.chunks

    def require_whole(self) -> None:
        """Check that the file holds a whole matrix.

        Raises:
            UnfinishedResultError: If the file is a shard.
        """
        if self.shard is not None:
            raise UnfinishedResultError(
                f"{self.path} is shard {self.shard} of a matrix, its {self.axis} "
                f"{self.shard.start}:{self.shard.stop}; python -m outputs.merge puts the shards "
                "together."
            )
