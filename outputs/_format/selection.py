"""The lines of a matrix that a file holds, where these are not all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outputs._errors import ResultError
from outputs._format.axes import TensorSpec

_LONGEST = 3


@dataclass(frozen=True)
class Selection:
    """The rows and columns of a matrix that a file holds.

    Attributes:
        rows: Their numbers in the whole matrix, int64 of shape (rows,), ascending.
        columns: Likewise.
        whole_rows: The tensors of all rows.
        whole_columns: The tensors of all columns.

    Raises:
        ResultError: If the numbers do not ascend or are not within the whole matrix.
    """

    rows: np.ndarray
    columns: np.ndarray
    whole_rows: tuple[TensorSpec, ...]
    whole_columns: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            numbers, tensors = getattr(self, name), getattr(self, f"whole_{name}")
            size = sum(tensor.size for tensor in tensors)
            if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
                raise ResultError(f"The numbers of the {name} are no list of whole numbers.")
            is_within = all(int(each) in range(size) for each in (*numbers[:1], *numbers[-1:]))
            if not is_within or bool((numbers[1:] <= numbers[:-1]).any()):
                raise ResultError(f"The numbers of the {name} do not ascend within the {size}.")

    @property
    def whole_shape(self) -> tuple[int, int]:
        """(rows, columns) of the whole matrix, of one point."""
        rows, columns = (
            sum(each.size for each in side) for side in (self.whole_rows, self.whole_columns)
        )
        return rows, columns

    def require_fitting(
        self, rows: tuple[TensorSpec, ...], columns: tuple[TensorSpec, ...]
    ) -> None:
        """Check that the tensors of a file's axes are the parts that the numbers say.

        Args:
            rows: The tensors of the rows in the file, each a part of one of the whole.
            columns: Likewise.

        Raises:
            ResultError: If they are not.
        """
        for name, parts in (("rows", rows), ("columns", columns)):
            numbers, tensors = getattr(self, name), getattr(self, f"whole_{name}")
            found, start = [], 0
            for tensor in tensors:
                bounds = np.searchsorted(numbers, (start, start + tensor.size))
                count = int(bounds[1] - bounds[0])
                start += tensor.size
                found += [(tensor.name, count, tensor.dtype)] if count else []
            if found != [(part.name, part.size, part.dtype) for part in parts]:
                raise ResultError(f"The numbers of the {name} do not fit their tensors.")

    def __str__(self) -> str:
        rows, columns = self.whole_shape
        sides = (("rows", self.rows, rows), ("columns", self.columns, columns))
        return ", ".join(
            f"all {size} {name}"
            if len(numbers) == size
            else f"{len(numbers)} of {size} {name} ({in_words(numbers)})"
            for name, numbers, size in sides
        )


def in_words(numbers: np.ndarray) -> str:
    """Return ascending numbers as ranges, such as ``0:300, 500``; of many the first and last."""
    if not len(numbers):
        return "none"
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    starts = numbers[np.concatenate([[0], breaks])]
    stops = numbers[np.concatenate([breaks, [len(numbers)]]) - 1] + 1
    runs = [f"{a}:{b}" if b > a + 1 else f"{a}" for a, b in zip(starts, stops, strict=True)]
    if len(runs) > _LONGEST:
        runs = [*runs[: _LONGEST - 1], "...", runs[-1]]
    return ", ".join(runs)
