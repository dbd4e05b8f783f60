"""The diagonal blocks of a matrix of which a file holds nothing else."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import h5py

from outputs._errors import ResultError
from outputs._format.axes import TensorSpec, find_tensor
from outputs._format.ragged_matrices import RaggedMatrices
from outputs._format.stacked_matrices import Matrix
from outputs._reading.matrix_in_memory import MatrixInMemory
from outputs._storage.files import translated


class DiagonalBlock(MatrixInMemory):
    """A diagonal block of a symmetric matrix, in memory.

    Attributes:
        rows: The tensors of its rows, which are those of its columns.
        columns: The same.
        shape: (rows, columns), the same number.
        dtype: Dtype of the entries.
    """

    def __repr__(self) -> str:
        names = ", ".join(tensor.name for tensor in self.rows)
        return f"<Diagonal block of {names}: {self.shape[0]} x {self.shape[1]} {self.dtype}>"


class OfBlocks:
    """What an open result of diagonal blocks can do; see `outputs.Result`."""

    path: Path
    stored_matrix: Matrix
    rows: tuple[TensorSpec, ...]
    tensors_of_blocks: tuple[int, ...]

    @abstractmethod
    def dataset(self) -> h5py.Dataset:
        """Return the complete matrix."""

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The names of the tensors of each diagonal block; empty for other structures."""
        names = iter(tensor.name for tensor in self.rows)
        return tuple(tuple(next(names) for _ in range(count)) for count in self.tensors_of_blocks)

    def block_of(self, name: str) -> DiagonalBlock:
        """Read the diagonal block of a tensor, with all tensors of its group.

        Args:
            name: Name of the tensor.

        Raises:
            ResultError: If there is no such tensor, the file holds no diagonal blocks, or it is
                incomplete, closed or damaged.
        """
        self.dataset()
        if not isinstance(self.stored_matrix, RaggedMatrices) or not self.groups:
            raise ResultError(
                f"result.block_of() reads diagonal blocks, and {self.path} holds no such blocks; "
                "result.block(row, column) reads a part of a whole matrix."
            )
        find_tensor("row", self.rows, name)
        number = next(n for n, group in enumerate(self.groups) if name in group)
        tensors = _of_block(self.rows, self.tensors_of_blocks, number)
        with translated(self.path):
            return DiagonalBlock(self.stored_matrix.matrix(number), tensors, tensors)

    def require_one_block(self, row: str, column: str) -> None:
        """Check that two tensors have a diagonal block in common.

        Raises:
            ResultError: If their entries are outside of the diagonal blocks.
        """
        for what, name in (("row", row), ("column", column)):
            find_tensor(what, self.rows, name)
        if not any({row, column} <= set(group) for group in self.groups):
            raise ResultError(
                f"{self.path} holds the diagonal blocks of its matrix only, and the entries of "
                f"{row} by {column} are outside of them; structure.groups= of a job puts tensors "
                "into one block, structure=full computes all."
            )


def _of_block(
    tensors: tuple[TensorSpec, ...], counts: tuple[int, ...], number: int
) -> tuple[TensorSpec, ...]:
    first = sum(counts[:number])
    return tensors[first : first + counts[number]]
