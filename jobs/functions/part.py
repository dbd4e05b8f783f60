"""The part of a matrix that a job computes, and which lines of a second derivative these are."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from jobs.functions.loading import LoadedFunction
from jobs.functions.selections import SelectedAxis


@dataclass(frozen=True)
class Lines:
    """The lines of a second derivative that are computed, where rows and columns are not the same.

    Attributes:
        rows: The rows, among the elements of the point.
        columns: The columns, likewise.
    """

    rows: SelectedAxis
    columns: SelectedAxis


@dataclass(frozen=True)
class Part:
    """The part of a matrix that a job computes.

    Attributes:
        rows: The selected rows of the whole matrix.
        columns: The selected columns of the whole matrix.
        whole: The function of the whole point.
        point: The whole point.
        function: The function of the selected elements.
        selected: The selected elements of the point, by the names of their tensors.
        lines: Which lines of its Hessian are computed; None where all are.
    """

    rows: SelectedAxis
    columns: SelectedAxis
    whole: LoadedFunction
    point: dict[str, Tensor]
    function: LoadedFunction
    selected: dict[str, Tensor]
    lines: Lines | None = None

    @property
    def whole_shape(self) -> tuple[int, int]:
        """(rows, columns) of the whole matrix, of one point."""
        return self.rows.size, self.columns.size

    def choices(self) -> dict[str, str]:
        """Return what the fingerprint covers of the selection."""
        axes = {"rows": self.rows, "columns": self.columns}
        return {name: axis.digest for name, axis in axes.items() if not axis.is_whole}
