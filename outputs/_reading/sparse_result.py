"""Read sparse results: compressed rows, and the colouring of their pattern.

The layout of the group is AnnData's for scipy's `csr_matrix` (encoding-version 0.1.0), so that
AnnData's readers can read it.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from outputs._errors import ResultError
from outputs._format.compressed_rows import problem_of_columns, problem_of_offsets
from outputs._format.names import ARRAYS, CHECKSUM, CHECKSUMS, COLOURING, PIECE
from outputs._format.reading import is_sparse, read_arrays, require_ours
from outputs._format.tables import dataset, group_of
from outputs._format.validation import integers, scalar, whole
from outputs._optional import load
from outputs._reading.presentation.drawing import sparse_figure
from outputs._reading.presentation.page import sparse_page
from outputs._reading.result_file import ResultFile
from outputs._storage.crc import crc32_of_array
from outputs._storage.files import open_file, parsed

if TYPE_CHECKING:
    import scipy.sparse
    from matplotlib.figure import Figure
    from scipy.sparse.linalg import LinearOperator


def open_sparse_result(path: str | os.PathLike[str]) -> SparseResult:
    """Open a sparse result.

    Args:
        path: The file.

    Raises:
        ResultNotFoundError: If there is no such file.
        ResultError: If the file is not a sparse result, or is damaged.
    """
    return SparseResult(Path(path).absolute())


def is_sparse_result(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a result with a sparse matrix; False for any other file."""
    try:
        with parsed(Path(path)), open_file(Path(path), "r") as file:
            require_ours(file, Path(path))
            return is_sparse(file)
    except ResultError:
        return False


class SparseResult(ResultFile):
    """A sparse matrix in a file, read on demand.

    Attributes:
        path: The file.
        operation: ``jacobian`` or ``hessian``.
        strategy: Name of the strategy that computed the compressed products.
        function: Reference of the function that was differentiated.
        fingerprint: Hash of the options that determine the numbers.
        rows: The tensors along the rows.
        columns: The tensors along the columns.
        shape: (rows, columns).
        dtype: Dtype of the entries.
        entries: Number of stored entries.
        kind: The kind of colouring: ``column``, ``row``, ``bidirectional`` or ``star``.
    """

    def _read_header(self) -> None:
        if not is_sparse(self.file):
            raise ResultError(f"{self.path} holds no sparse matrix; open_result opens it.")
        super()._read_header()
        group = group_of(self.file, self.operation)
        self._data, self._indices, self._indptr = (dataset(group, name) for name in ARRAYS)
        kinds = [array.dtype.kind for array in (self._data, self._indices, self._indptr)]
        if kinds[0] not in tuple("fc") or not {*kinds[1:]} <= {"i", "u"}:
            raise ResultError(f"{self.path} is damaged: its entries are no numbers.")
        self.shape: tuple[int, int] = integers(group, "shape", 2)
        self.dtype: np.dtype = self._data.dtype
        self.entries = math.prod(self._data.shape)
        sizes = tuple(sum(t.size for t in axis) for axis in (self.rows, self.columns))
        lengths = (self._data.shape, self._indices.shape, self._indptr.shape)
        expected = ((self.entries,), (self.entries,), (self.shape[0] + 1,))
        if sizes != self.shape or lengths != expected:
            raise ResultError(f"{self.path} is damaged: its arrays do not fit its shape.")
        self.kind = str(scalar(group_of(self.file, COLOURING), "kind"))

    def __reduce__(self) -> tuple[Any, ...]:
        # Only the path is pickled; the receiving process opens the file again.
        return open_sparse_result, (self.path.absolute(),)

    def __repr__(self) -> str:
        rows, columns = self.shape
        return (
            f"<SparseResult, {self._state()}: {self.operation} of {self.function}: "
            f"{rows} x {columns} {self.dtype}, {self.entries} entries>"
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        """Refuse to become a dense array, as sparse matrices of scipy and torch do not either.

        Raises:
            TypeError: Always.
        """
        raise TypeError(
            f"{self.path} has a sparse matrix: as_scipy() reads it, and as_scipy().toarray() makes "
            "a dense array."
        )

    def _repr_html_(self) -> str:
        """Return what notebooks show: the state of verification, the facts and a small picture."""
        return sparse_page(self)

    def plot(self) -> Figure:
        """Draw the pattern, as `outputs.plot` does.

        Returns:
            A figure of Matplotlib, which a notebook shows; ``savefig`` writes it to a file.

        Raises:
            MissingDependencyError: If Matplotlib is not installed.
            ResultError: If the file is closed or damaged.
        """
        return sparse_figure(self, "result.plot()")

    def _lines_to_check(self) -> tuple[int, str]:
        return 0 if 0 in self.shape else self.shape[0], "rows and columns"

    def as_scipy(self) -> scipy.sparse.csr_array:
        """Read the matrix as a `scipy.sparse.csr_array`.

        Raises:
            MissingDependencyError: If SciPy is not installed.
            ResultError: If the file is closed or damaged.
        """
        return self.row_range(0, self.shape[0])

    def row_range(self, start: int, stop: int) -> scipy.sparse.csr_array:
        """Read a range of rows, and only the entries of these rows.

        Args:
            start: The first row.
            stop: One past the last row.

        Raises:
            MissingDependencyError: If SciPy is not installed.
            ResultError: If the range is not within the matrix, or the file is closed or damaged.
        """
        sparse = load("scipy.sparse", "reading", "row_range()")
        if not 0 <= start <= stop <= self.shape[0]:
            raise ResultError(
                f"{self.path} has {self.shape[0]} rows; {start}:{stop} are not among them."
            )
        indptr, indices, data = self.compressed_rows(start, stop)
        shape = (stop - start, self.shape[1])
        array = sparse.csr_array((data, indices, indptr - indptr[0]), shape=shape)
        array.has_sorted_indices = True
        array.has_canonical_format = True
        return array

    def compressed_rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read the offsets, columns and entries of a range of rows; internal to this package."""
        with self._reading():
            indptr, indices = self._rows(start, stop)
            return indptr, indices, self._data[int(indptr[0]) : int(indptr[-1])]

    def as_torch(self) -> Any:
        """Read the matrix as a sparse CSR tensor of torch."""
        import torch  # imported here because reading a file must not require torch

        with self._reading():
            arrays = (*self._rows(0, self.shape[0]), self._data[()])
            indptr, indices, data = map(torch.from_numpy, arrays)
        # torch warns once per process that its sparse CSR support is in beta.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            return torch.sparse_csr_tensor(
                indptr.long(), indices.long(), data, size=self.shape, check_invariants=True
            )

    def _rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Read the offsets and the columns of a range of rows, both checked.

        Raises:
            ResultError: If an offset or a column is not within the matrix, or out of order.
        """
        indptr = self._offsets(start, stop)
        indices = self._indices[int(indptr[0]) : int(indptr[-1])]
        self._require(problem_of_columns(indptr, indices, self.shape[1]))
        # Within the matrix, signed numbers hold what unsigned ones do.
        return indptr, indices.astype(np.int64) if indices.dtype.kind == "u" else indices

    def _offsets(self, start: int, stop: int) -> np.ndarray:
        """Read the offsets of a range of rows, int64 of shape (stop - start + 1,), checked."""
        indptr = self._indptr[start : stop + 1]
        first = 0 if start == 0 else max(0, int(indptr[0]))
        self._require(problem_of_offsets(indptr, self.entries, first=first))
        if stop == self.shape[0] and int(indptr[-1]) != self.entries:
            self._require("indptr does not end where the entries do")
        return indptr.astype(np.int64, copy=False)

    def _require(self, problem: str) -> None:
        if problem:
            raise ResultError(
                f"{self.path} is damaged: its index arrays are not those of compressed "
                f"rows: {problem}."
            )

    def as_linear_operator(self) -> LinearOperator:
        """Return a SciPy operator that reads the matrix anew for each product, range by range."""
        linalg = load("scipy.sparse.linalg", "reading", "as_linear_operator()")

        def product(right: np.ndarray) -> np.ndarray:
            parts = [rows @ right for _, rows in self.ranges()]
            return np.concatenate(parts) if parts else np.zeros((0, *right.shape[1:]))

        def adjoint_product(left: np.ndarray) -> np.ndarray:
            dtype = np.result_type(self.dtype, left)
            total = np.zeros((self.shape[1], *left.shape[1:]), dtype)
            for start, rows in self.ranges():
                total += rows.conj().transpose() @ left[start : start + len(rows.indptr) - 1]
            return total

        return linalg.LinearOperator(
            self.shape,
            matvec=product,
            rmatvec=adjoint_product,
            matmat=product,
            rmatmat=adjoint_product,
            dtype=self.dtype,
        )

    def ranges(self) -> Iterator[tuple[int, scipy.sparse.csr_array]]:
        """Yield the matrix as ranges of rows of about a million entries: (first row, rows)."""
        with self._reading():
            indptr = self._offsets(0, self.shape[0])
        start = 0
        while start < self.shape[0]:
            stop = int(np.searchsorted(indptr, indptr[start] + PIECE, side="right")) - 1
            stop = min(max(stop, start + 1), self.shape[0])
            yield start, self.row_range(start, stop)
            start = stop

    @property
    def colours(self) -> dict[str, np.ndarray]:
        """The colours, under ``column_colours`` and ``row_colours`` if the file has them.

        Raises:
            ResultError: If there are other arrays, or colours that do not fit the matrix.
        """
        with self._reading():
            found = read_arrays(self.file, COLOURING)
        lengths = {"row_colours": self.shape[0], "column_colours": self.shape[1]}
        for name, colours in found.items():
            length = lengths.get(name)
            if (
                colours.shape != (length,)
                or colours.dtype.kind != "i"
                or (length and not -1 <= int(colours.min()) <= int(colours.max()) < length)
            ):
                raise ResultError(f"{self.path} is damaged: its colours do not fit its matrix.")
        return found

    @property
    def pattern(self) -> tuple[np.ndarray, np.ndarray]:
        """The pattern in compressed rows: (indptr, indices).

        Raises:
            ResultError: If the file is closed, or its index arrays are not those of such rows.
        """
        with self._reading():
            return self._rows(0, self.shape[0])

    @property
    def index_dtype(self) -> np.dtype:
        """Dtype of columns and offsets: int32 where they fit, else int64."""
        largest = max(*self.shape, self.entries)
        return np.dtype(np.int32 if largest <= np.iinfo(np.int32).max else np.int64)

    @property
    def stored_bytes(self) -> int:
        """Bytes that the entries and their indices occupy in the file."""
        arrays = (self._data, self._indices, self._indptr)
        return sum(array.id.get_storage_size() for array in arrays)

    def damaged_pieces(self) -> list[tuple[str, int, int]]:
        """Return the pieces whose checksum differs, as (array, start, stop); read all arrays.

        Raises:
            ResultError: If the checksums do not cover the arrays.
        """
        found = []
        with self._reading():
            table = whole(dataset(self.file, CHECKSUMS))
            if table.dtype != CHECKSUM:
                raise ResultError(f"{self.path} is damaged: its checksum table is invalid.")
            for number, array in enumerate((self._data, self._indices, self._indptr)):
                rows = table[table["array"] == number]
                covered = 0
                for start, stop, expected in zip(
                    *(rows[name].tolist() for name in ("start", "stop", "crc32")), strict=True
                ):
                    if start != covered or stop > array.shape[0]:
                        raise ResultError(f"{self.path} is damaged: its checksums do not fit.")
                    if crc32_of_array(array[start:stop]) != expected:
                        found.append((ARRAYS[number], start, stop))
                    covered = stop
                if covered != array.shape[0]:
                    raise ResultError(f"{self.path} is damaged: its checksums do not fit.")
        return found
