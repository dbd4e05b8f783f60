"""The structural sparsity pattern of a matrix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from autodiff_core.sparse._errors import PatternError


@dataclass(frozen=True, eq=False)
class SparsityPattern:
    """The structural pattern of a matrix in compressed rows.

    A pattern may contain entries that happen to be zero, but contains every entry that can be
    nonzero at any point where the function takes the same branches.

    Attributes:
        shape: (rows, columns).
        indptr: int64 (rows + 1,): row i has the entries indptr[i] to indptr[i + 1].
        indices: int32 or int64 (entries,): the columns, ascending in each row.
        conservative: The operators without a rule, whose results were assumed to depend on
            everything that they read, with the lines that call them.
        frozen: What the pattern holds of the point at which it was found: branches on values,
            and indices, masks and positions that the function computed there. Where it is not
            empty, other points may have another pattern.
    """

    shape: tuple[int, int]
    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    conservative: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()

    @property
    def entries(self) -> int:
        """The number of entries."""
        return len(self.indices)

    @classmethod
    def from_scipy(cls, matrix: Any) -> SparsityPattern:
        """Return the pattern of a scipy sparse matrix, including explicit zeros."""
        rows = scipy.sparse.csr_array(matrix, copy=True)
        rows.sum_duplicates()
        shape = rows.indptr.size - 1, int(matrix.shape[1])
        return cls(shape, rows.indptr.astype(np.int64), rows.indices)

    def to_scipy(self, data: NDArray[Any] | None = None) -> scipy.sparse.csr_array:
        """Return a `csr_array` with the given entries, or with True for each entry.

        The arrays are shared, not copied, as far as scipy allows.
        """
        values = np.ones(self.entries, dtype=bool) if data is None else data
        # scipy requires one dtype for both index arrays, and int32 if it suffices.
        dtype = np.int32 if self.entries < 2**31 else np.int64
        indices = self.indices.astype(dtype, copy=False)
        indptr = self.indptr.astype(dtype, copy=False)
        array = scipy.sparse.csr_array((values, indices, indptr), shape=self.shape, copy=False)
        array.has_sorted_indices = True
        array.has_canonical_format = True
        return array

    def transposed(self) -> SparsityPattern:
        """Return the pattern of the transposed matrix."""
        columns = self.to_scipy().tocsc()
        return SparsityPattern(
            (self.shape[1], self.shape[0]),
            columns.indptr.astype(np.int64),
            columns.indices,
            self.conservative,
            self.frozen,
        )

    def is_symmetric(self) -> bool:
        """Return whether the pattern contains (j, i) for each of its entries (i, j)."""
        if self.shape[0] != self.shape[1]:
            return False
        other = self.transposed()
        return np.array_equal(self.indptr, other.indptr) and np.array_equal(
            self.indices, other.indices
        )

    def save(self, path: str | Path) -> None:
        """Write the pattern to an .npz archive, under exactly this path."""
        with Path(path).open("wb") as file:
            np.savez(file, **arrays_of(self))

    @classmethod
    def load(cls, path: str | Path) -> SparsityPattern:
        """Read what `save` wrote.

        Raises:
            PatternError: The file contains no pattern, or a damaged one.
        """
        with open_archive(path) as archive:
            return pattern_from(archive, str(path))

    def check(self, name: str = "the pattern") -> None:
        """Check that the arrays describe a matrix.

        Raises:
            PatternError: They do not.
        """
        indptr, indices = self.indptr, self.indices
        sound = all(each.ndim == 1 and each.dtype.kind == "i" for each in (indptr, indices))
        sound = sound and len(indptr) == self.shape[0] + 1 and min(self.shape) >= 0
        # The kernels count positions in compressed products, at most twice the matrix, in int64.
        sound = sound and 2 * self.shape[0] * self.shape[1] < 2**63
        # Comparisons, because differences of extreme numbers wrap around.
        sound = sound and int(indptr[0]) == 0 and int(indptr[-1]) == len(indices)
        sound = sound and bool(np.all(indptr[1:] >= indptr[:-1]))
        if sound and len(indices):
            sound = int(indices.min()) >= 0 and int(indices.max()) < self.shape[1]
            inner = np.ones(len(indices) - 1, dtype=bool)
            ends = indptr[1:-1]
            inner[ends[(ends > 0) & (ends < len(indices))] - 1] = False
            sound = sound and bool(np.all((indices[1:] > indices[:-1]) | ~inner))
        if not sound:
            raise PatternError(
                f"{name}: indptr and indices are not those of compressed rows of a matrix of "
                f"shape {self.shape} with ascending columns"
            )


@contextmanager
def open_archive(path: str | Path) -> Iterator[Any]:
    """Open an .npz archive, whose arrays are read when they are taken from it.

    Raises:
        FileNotFoundError: There is no such file.
        PatternError: It is no archive, or a damaged one.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            yield archive
    except (PatternError, FileNotFoundError):
        raise
    # A damaged file makes numpy, zipfile and zlib raise errors of many types.
    except Exception as error:
        raise PatternError(f"{path} is no readable .npz archive ({error})") from error


def arrays_of(pattern: SparsityPattern) -> dict[str, Any]:
    """Return the arrays that an archive stores for a pattern, by name."""
    return {
        "shape": np.array(pattern.shape),
        "indptr": pattern.indptr,
        "indices": pattern.indices,
        "conservative": np.array(pattern.conservative, dtype=str),
        "frozen": np.array(pattern.frozen, dtype=str),
    }


def pattern_from(archive: Any, path: str) -> SparsityPattern:
    """Return the pattern stored in the arrays of an open archive.

    Args:
        archive: The arrays by name.
        path: The archive's path, for the message.

    Raises:
        PatternError: There is no pattern, or a damaged one.
    """
    if not {"shape", "indptr", "indices", "conservative"} <= set(archive):
        raise PatternError(f"{path} holds no sparsity pattern")
    rows, columns = map(int, archive["shape"])
    pattern = SparsityPattern(
        (rows, columns),
        archive["indptr"],
        archive["indices"],
        tuple(map(str, archive["conservative"])),
        # Archives of earlier versions have none.
        tuple(map(str, archive["frozen"])) if "frozen" in archive else (),
    )
    pattern.check(path)
    return pattern
