"""The interface of a dense result, on which the views and exporters depend."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from outputs._format.axes import TensorSpec
from outputs._format.drawn_vectors import DrawnVectors
from outputs._format.selection import Selection
from outputs._format.stacked_matrices import Matrix


class DenseResult(Protocol):
    """An open dense result; see `outputs.Result`, which implements it."""

    path: Path
    operation: str
    strategy: str
    function: str
    fingerprint: str
    shape: tuple[int, ...]
    matrix_shape: tuple[int, int]
    point_count: int | None
    is_ragged: bool
    dtype: np.dtype
    rows: tuple[TensorSpec, ...]
    columns: tuple[TensorSpec, ...]
    selection: Selection | None
    rows_are_tuple: bool
    columns_are_tuple: bool

    @property
    def row_numbers(self) -> np.ndarray:
        """The numbers of the rows in the whole matrix."""
        ...

    @property
    def column_numbers(self) -> np.ndarray:
        """The numbers of the columns in the whole matrix."""
        ...

    @property
    def ndim(self) -> int:
        """Number of dimensions: two, or three with many points."""
        ...

    @property
    def points(self) -> dict[str, np.ndarray]:
        """The inputs, by name."""
        ...

    @property
    def value(self) -> dict[str, np.ndarray]:
        """The function's value, by name."""
        ...

    @property
    def vectors(self) -> dict[str, np.ndarray]:
        """The vectors of a product, by name."""
        ...

    @property
    def drawn_vectors(self) -> DrawnVectors | None:
        """What the vectors of a product are drawn from; None if they are stored."""
        ...

    @property
    def configuration(self) -> str:
        """The composed configuration, as YAML."""
        ...

    @property
    def provenance(self) -> dict[str, str | int | float | bool]:
        """Versions, device, seeds and the like."""
        ...

    @property
    def execution(self) -> dict[str, Any]:
        """The execution record."""
        ...

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a slice of the matrix."""
        ...

    def block(self, row: str, column: str) -> np.ndarray:
        """Read the entries of one row tensor by one column tensor, in natural shape."""
        ...

    def dataset(self) -> h5py.Dataset:
        """Return the complete matrix as a dataset of the shape of the result."""
        ...

    def matrix(self) -> Matrix:
        """Return the complete matrix with two dimensions."""
        ...
