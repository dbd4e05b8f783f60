"""Sparse matrices in a file: compressed rows, with the pattern's colouring beside them.

The layout of the group is that which AnnData gave to scipy's `csr_matrix` (encoding-version 0.1.0),
so that its readers know it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from outputs._errors import ResultError
from outputs._format import reading as layout
from outputs._format.names import ARRAYS, CHECKSUM, CHECKSUMS, COLOURING, PIECE, Names
from outputs._format.probes import Probes
from outputs._format.validation import scalar
from outputs._optional import load
from outputs._storage.crc import crc32_of_array
from outputs._storage.files import open_file, parsed, translated

if TYPE_CHECKING:
    import scipy.sparse
    from scipy.sparse.linalg import LinearOperator


def open_sparse_result(path: str | os.PathLike[str]) -> SparseResult:
    """Open a sparse result.

    Args:
        path: The file.

    Raises:
        ResultNotFoundError: There is no such file.
        ResultError: It is no sparse result, or damaged.
    """
    return SparseResult(Path(path).absolute())


def is_sparse_result(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a result with a sparse matrix; False also where it is none at all."""
    try:
        with parsed(Path(path)), open_file(Path(path), "r") as file:
            layout.require_ours(file, Path(path))
            return layout.is_sparse(file)
    except ResultError:
        return False


class SparseResult:
    """A sparse matrix in a file, read as far as it is asked for.

    Attributes:
        path: The file.
        operation: ``jacobian`` or ``hessian``.
        strategy: How the compressed products were computed.
        function: What was differentiated.
        fingerprint: The hash of what determines the numbers.
        rows: The tensors along the rows.
        columns: The tensors along the columns.
        shape: (rows, columns).
        dtype: Of the entries.
        entries: How many are stored.
        kind: The kind of colouring: ``column``, ``row``, ``bidirectional`` or ``star``.
    """

    def __init__(self, path: Path) -> None:
        """Open a file; see `open_sparse_result`."""
        self.path = path
        self._file = open_file(path, "r")
        try:
            layout.require_ours(self._file, path)
            with parsed(path):
                self._read_header()
        except BaseException:
            self._file.close()
            raise

    def _read_header(self) -> None:
        file = self._file
        if not layout.is_sparse(file):
            raise ResultError(f"{self.path} holds no sparse matrix; open_result opens it.")
        self.operation = layout.read_attribute(file, "operation")
        self.strategy = layout.read_attribute(file, "strategy")
        self.function = layout.read_attribute(file, "function")
        self.fingerprint = layout.read_attribute(file, "fingerprint")
        self.rows = layout.read_table(file, Names.ROWS)
        self.columns = layout.read_table(file, Names.COLUMNS)
        group = layout.group_of(file, self.operation)
        self._data, self._indices, self._indptr = (layout.dataset(group, name) for name in ARRAYS)
        if self._data.dtype.kind not in "fc" or self._indices.dtype.kind not in "iu":
            raise ResultError(f"{self.path} is damaged: its entries are no numbers.")
        shape = np.asarray(group.attrs["shape"]).tolist()
        self.shape: tuple[int, int] = (int(shape[0]), int(shape[1]))
        self.dtype: np.dtype = self._data.dtype
        self.entries = int(self._data.shape[0])
        sizes = tuple(sum(t.size for t in axis) for axis in (self.rows, self.columns))
        lengths = (self._indices.shape, self._indptr.shape)
        if sizes != self.shape or lengths != ((self.entries,), (self.shape[0] + 1,)):
            raise ResultError(f"{self.path} is damaged: its arrays do not fit its shape.")
        self.kind = str(scalar(layout.group_of(file, COLOURING), "kind"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __repr__(self) -> str:
        rows, columns = self.shape
        return (
            f"<SparseResult {self.operation} of {self.function}: {rows} x {columns} {self.dtype}, "
            f"{self.entries} entries>"
        )

    def as_scipy(self) -> scipy.sparse.csr_array:
        """The matrix in memory, as a `scipy.sparse.csr_array`.

        Raises:
            MissingDependencyError: SciPy is not installed.
            ResultError: The file is closed or damaged.
        """
        return self.row_range(0, self.shape[0])

    def row_range(self, start: int, stop: int) -> scipy.sparse.csr_array:
        """Some rows, of which alone the entries are read.

        Args:
            start: The first row.
            stop: One past the last.

        Raises:
            ResultError: There are no such rows, or the file is closed or damaged.
        """
        sparse = load("scipy.sparse", "reading", "row_range()")
        if not 0 <= start <= stop <= self.shape[0]:
            raise ResultError(
                f"{self.path} has {self.shape[0]} rows; {start}:{stop} are not among them."
            )
        with self._reading():
            indptr = self._indptr[start : stop + 1]
            entries = slice(int(indptr[0]), int(indptr[-1]))
            data, indices = self._data[entries], self._indices[entries]
        shape = (stop - start, self.shape[1])
        array = sparse.csr_array((data, indices, indptr - indptr[0]), shape=shape)
        array.has_sorted_indices = True
        array.has_canonical_format = True
        return array

    def as_torch(self) -> Any:
        """The matrix in memory, as a sparse CSR tensor of torch."""
        import torch  # the readers of a file need not have torch

        arrays = (self._indptr, self._indices, self._data)
        with self._reading():
            indptr, indices, data = (torch.from_numpy(array[()]) for array in arrays)
        # torch tells once that sparse tensors are young.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            return torch.sparse_csr_tensor(
                indptr.long(), indices.long(), data, size=self.shape, check_invariants=True
            )

    def as_linear_operator(self) -> LinearOperator:
        """An operator of SciPy that reads the matrix anew for each product, range by range."""
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
        """The whole matrix as ranges of rows of about a million entries: (first row, rows)."""
        with self._reading():
            indptr = self._indptr[()]
        start = 0
        while start < self.shape[0]:
            stop = int(np.searchsorted(indptr, indptr[start] + PIECE, side="right")) - 1
            stop = min(max(stop, start + 1), self.shape[0])
            yield start, self.row_range(start, stop)
            start = stop

    @property
    def colours(self) -> dict[str, np.ndarray]:
        """The colours by ``column_colours`` and ``row_colours``, as far as there are."""
        with self._reading():
            return layout.read_arrays(self._file, COLOURING)

    @property
    def pattern(self) -> tuple[np.ndarray, np.ndarray]:
        """(indptr, indices)."""
        with self._reading():
            return self._indptr[()], self._indices[()]

    @property
    def probes(self) -> Probes | None:
        """Products by which the matrix can be verified; None in a file without."""
        with self._reading():
            return layout.read_probes(self._file)

    @property
    def points(self) -> dict[str, np.ndarray]:
        """The point, by the names of the arguments."""
        with self._reading():
            return layout.read_arrays(self._file, Names.POINT)

    @property
    def value(self) -> dict[str, np.ndarray]:
        """The function's value there, by the names of the outputs."""
        with self._reading():
            return layout.read_arrays(self._file, Names.VALUE)

    @property
    def configuration(self) -> str:
        """The options of the job, YAML."""
        with self._reading():
            return layout.read_text(self._file, Names.CONFIGURATION)

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, device, seeds, host, time."""
        with self._reading():
            return layout.read_provenance(self._file)

    @property
    def execution(self) -> dict[str, Any]:
        """How it was computed."""
        with self._reading():
            return layout.read_execution(self._file)

    @property
    def stored_bytes(self) -> int:
        """Bytes that the entries and their places take in the file."""
        arrays = (self._data, self._indices, self._indptr)
        return sum(array.id.get_storage_size() for array in arrays)

    def damaged_pieces(self) -> list[tuple[str, int, int]]:
        """Pieces without their checksum: (array, start, stop); reads all of them.

        Raises:
            ResultError: The checksums do not cover the arrays.
        """
        found = []
        with self._reading():
            table = layout.dataset(self._file, CHECKSUMS)[()]
            if table.dtype != CHECKSUM:
                raise ResultError(f"{self.path} is damaged: its checksums are none.")
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

    def _reading(self) -> Any:
        if not self._file:
            raise ResultError(f"{self.path} is closed.")
        return translated(self.path)
