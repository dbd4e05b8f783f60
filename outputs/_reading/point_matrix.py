"""The matrix at one of many points."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from outputs._errors import ResultError
from outputs._format.axes import TensorSpec
from outputs._format.description import BLOCKS
from outputs._format.ragged_matrices import RaggedMatrices
from outputs._format.selection import Selection
from outputs._format.stacked_matrices import Matrix
from outputs._reading.matrix_in_memory import MatrixInMemory
from outputs._storage.files import translated


class PointMatrix(MatrixInMemory):
    """The matrix at one of many points, in memory.

    Attributes:
        number: The number of the point, from 0.
        rows: The tensors of its rows.
        columns: The tensors of its columns.
        row_numbers: The numbers of the rows in the whole matrix at the point, int64.
        column_numbers: Likewise of the columns.
        point: The inputs there, by name, in their natural shapes.
        value: What the function returns there, by name.
        shape: (rows, columns).
        dtype: Dtype of the entries.
    """

    def __init__(
        self,
        number: int,
        values: np.ndarray,
        rows: tuple[TensorSpec, ...],
        columns: tuple[TensorSpec, ...],
        numbers: tuple[np.ndarray, np.ndarray],
        point: dict[str, np.ndarray],
        value: dict[str, np.ndarray],
    ) -> None:
        super().__init__(values, rows, columns)
        self.number, self.point, self.value = number, point, value
        self.row_numbers, self.column_numbers = numbers

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"<Point {self.number}: {rows} x {columns} {self.dtype}>"


class OfPoints:
    """What an open result of many points can do; see `outputs.Result`."""

    path: Path
    point_count: int | None
    is_ragged: bool
    structure: str
    stored_matrix: Matrix
    rows: tuple[TensorSpec, ...]
    columns: tuple[TensorSpec, ...]
    selection: Selection | None

    @property
    @abstractmethod
    def row_numbers(self) -> np.ndarray:
        """The numbers of the rows in the whole matrix, of each point or counted over all."""

    @property
    @abstractmethod
    def column_numbers(self) -> np.ndarray:
        """The numbers of the columns, likewise."""

    @property
    @abstractmethod
    def points(self) -> dict[str, np.ndarray]:
        """The inputs, by name."""

    @property
    @abstractmethod
    def value(self) -> dict[str, np.ndarray]:
        """The function's value, by name."""

    @abstractmethod
    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a part of the matrix."""

    @abstractmethod
    def dataset(self) -> h5py.Dataset:
        """Return the complete matrix."""

    @abstractmethod
    def require_all_entries(self, purpose: str) -> None:
        """Check that the file holds all entries of its matrix."""

    def point(self, number: int) -> PointMatrix:
        """Read the matrix at one of many points, by its number from 0 on, or from the end.

        Raises:
            ResultError: If there is no such point, or the file is incomplete, closed or damaged.
        """
        self.dataset()
        return _point_matrix(self, number)

    def require_one_point(self, purpose: str) -> None:
        """Check that the file holds a single matrix.

        Args:
            purpose: What needs a single matrix, as the subject of a sentence.

        Raises:
            ResultError: If the file holds one matrix for each of many points.
        """
        self.require_equal_points(purpose)
        if self.point_count is not None:
            raise ResultError(
                f"{purpose} takes one matrix, and {self.path} holds those of {self.point_count} "
                "points; result[0] is the first of them, as_xarray() all."
            )

    def require_equal_points(self, purpose: str) -> None:
        """Check that the matrices of many points have one size, for a purpose likewise.

        Raises:
            ResultError: If they have different sizes, or the file holds diagonal blocks.
        """
        if self.structure == BLOCKS:
            self.require_all_entries(purpose)
        if self.is_ragged:
            raise ResultError(
                f"{purpose} takes matrices of one size, and {self.path} holds those of "
                f"{self.point_count} points of different sizes; result.point(0) is the first."
            )


def _point_matrix(result: OfPoints, number: int) -> PointMatrix:
    """Read the matrix at one of many points, of one size or of different ones.

    Args:
        result: A complete result.
        number: The number of the point, from 0; negative ones count from the end.

    Raises:
        ResultError: There is no such point.
    """
    count, matrix = result.point_count, result.stored_matrix
    if not isinstance(number, int | np.integer):
        raise ResultError(f"result.point({number!r}): valid is the number of a point.")
    if result.structure == BLOCKS:
        result.require_all_entries("result.point()")
    if count is None:
        raise ResultError(f"{result.path} holds a single point; result[...] is its matrix.")
    if not -count <= number < count:
        raise ResultError(f"There is no point {number}; valid are 0 to {count - 1}.")
    number %= count
    if not isinstance(matrix, RaggedMatrices):
        point, value = (
            {name: array[number] for name, array in arrays.items()}
            for arrays in (result.points, result.value)
        )
        numbers = (result.row_numbers, result.column_numbers)
        return PointMatrix(
            number, result[number], result.rows, result.columns, numbers, point, value
        )
    with translated(result.path):
        values = matrix.matrix(number)
    rows, columns = (
        table[number * len(table) // count : (number + 1) * len(table) // count]
        for table in (result.rows, result.columns)
    )
    part, wholes = result.selection, (result.rows, result.columns)
    numbers = (np.arange(values.shape[0]), np.arange(values.shape[1]))
    if part is not None:
        wholes = (part.whole_rows, part.whole_columns)
        numbers = (
            _numbers_of_point(part.rows, part.whole_rows, count, number),
            _numbers_of_point(part.columns, part.whole_columns, count, number),
        )
    point = _parts_of_point(result.points, wholes[1], count, number)
    value = _parts_of_point(result.value, wholes[0], count, number)
    return PointMatrix(number, values, rows, columns, numbers, point, value)


def _numbers_of_point(
    numbers: np.ndarray, tensors: tuple[TensorSpec, ...], count: int, number: int
) -> np.ndarray:
    """Return the lines of a point among those that are counted over all points.

    Args:
        numbers: The lines of all points, ascending.
        tensors: The whole tensors of all points, point after point.
        count: The number of points.
        number: The number of the point.
    """
    sizes = [tensor.size for tensor in tensors]
    per_point = len(sizes) // count
    start = sum(sizes[: number * per_point])
    stop = start + sum(sizes[number * per_point : (number + 1) * per_point])
    return numbers[slice(*np.searchsorted(numbers, (start, stop)))] - start


def _parts_of_point(
    arrays: dict[str, np.ndarray], tables: tuple[TensorSpec, ...], count: int, number: int
) -> dict[str, np.ndarray]:
    """Return what arrays hold of one of many points of different sizes.

    Args:
        arrays: Name to array: the entries of all points one after another where the table has the
            tensor, else one entry for each point.
        tables: The tensors of all points, point after point.
        count: The number of points.
        number: The number of the point.
    """
    per_point = len(tables) // count
    found = {}
    for name, array in arrays.items():
        places = [n for n in range(per_point) if tables[n].name == name]
        if not places:
            found[name] = array[number]
            continue
        specs = tables[places[0] :: per_point]
        start = sum(spec.size for spec in specs[:number])
        spec = specs[number]
        found[name] = array[start : start + spec.size].reshape(spec.shape)
    return found
