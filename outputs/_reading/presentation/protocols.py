"""The interfaces of results that are shown, on which text, pages and figures depend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import h5py
import numpy as np

from outputs._format.axes import Axis, Shard, TensorSpec
from outputs._format.selection import Selection
from outputs._format.stacked_matrices import Matrix
from outputs._format.verification_state import Verdict
from outputs._reading.views.protocol import DenseResult

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


class AnyResult(Protocol):
    """An open result, dense or sparse; see `outputs._reading.result_file.ResultFile`."""

    path: Path
    operation: str
    strategy: str
    function: str
    fingerprint: str
    dtype: np.dtype
    rows: tuple[TensorSpec, ...]
    columns: tuple[TensorSpec, ...]
    selection: Selection | None
    structure: str
    tensors_of_blocks: tuple[int, ...]

    @property
    def verdict(self) -> Verdict:
        """How far the numbers are verified."""
        ...

    @property
    def provenance(self) -> dict[str, str | int | float | bool]:
        """Versions, device, seeds and the like."""
        ...

    @property
    def execution(self) -> dict[str, Any]:
        """The execution record."""
        ...

    @property
    def stored_bytes(self) -> int:
        """Bytes that the matrix occupies in the file."""
        ...

    def stored_arrays(self, name: str) -> Mapping[str, h5py.Dataset]:
        """Return the datasets of ``point``, ``value`` or ``vectors``, by tensor name."""
        ...


class ShownResult(AnyResult, DenseResult, Protocol):
    """An open dense result; see `outputs.Result`."""

    axis: Axis
    compression: str
    shard: Shard | None
    complete: bool
    blocks: int
    progress: str
    stored_matrix: Matrix

    @property
    def tile(self) -> tuple[int, int] | None:
        """Shape of a tile; None for a contiguous matrix."""
        ...

    @property
    def mask(self) -> np.ndarray:
        """Which lines of the block axis are present."""
        ...

    def as_linear_operator(self) -> LinearOperator:
        """Return an operator that multiplies out of core."""
        ...

    def require_one_point(self, purpose: str) -> None:
        """Check that the file holds a single matrix."""
        ...

    def require_all_entries(self, purpose: str) -> None:
        """Check that the file holds more of its rows than the diagonal."""
        ...


class ShownSparseResult(AnyResult, Protocol):
    """An open sparse result; see `outputs.SparseResult`."""

    shape: tuple[int, int]
    entries: int
    kind: str

    @property
    def colours(self) -> dict[str, np.ndarray]:
        """The colours of columns and rows."""
        ...

    @property
    def pattern(self) -> tuple[np.ndarray, np.ndarray]:
        """The pattern in compressed rows."""
        ...

    def compressed_rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Read the offsets, columns and entries of a range of rows."""
        ...
