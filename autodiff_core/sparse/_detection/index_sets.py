"""The sets of inputs on which the elements of a tensor depend, stored as a few index maps.

Most tensors in a computation depend, element by element, on a few inputs in a regular way.
So the sets are not stored one by one: a tensor has *layers*, each an integer tensor of the same
shape. An element of a layer is the flat index of an input, or -1 for none; the set of an element
is the union over its layers. Operations that only move data, views included, are run on the layers
themselves, and elementwise operations concatenate lists of layers, without duplicates.

When the layers become too many, one pass over the elements writes their sets to a *table*
(compressed rows), and a single layer of row numbers replaces them all: moving data then moves row
numbers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autodiff_core.sparse._detection.kernels import (
    bound_of_unions,
    union_of_layers,
    union_of_visits,
)
from autodiff_core.sparse._errors import DetectionError

MOST_LAYERS = 40
"""The largest number of layers of a tensor before they are written to a table."""

_ELEMENTS_OF_A_PASS = 2**22
"""The number of elements of layers that are gathered at once for a union of sets."""


@dataclass(frozen=True, eq=False)
class Table:
    """Sets of inputs in compressed rows.

    Attributes:
        indptr: int64 (rows + 1,).
        indices: int32 or int64; ascending in each row.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[Any]

    @property
    def rows(self) -> int:
        """The number of sets."""
        return len(self.indptr) - 1


@dataclass(frozen=True, eq=False)
class Layer:
    """One index for each element of a tensor.

    Attributes:
        map: A tensor of the same shape: the flat index of an input, or a row of `table`; -1 for
            none.
        table: The sets to which the map refers; None if it refers to inputs.
    """

    map: Tensor
    table: Table | None = None


Layers = tuple[Layer, ...]


class Sets:
    """Unions of sets of inputs, within limits on entries and time."""

    def __init__(self, inputs: int, most_entries: int, most_seconds: float | None = None) -> None:
        """Prepare for a number of inputs.

        Args:
            inputs: The number of inputs.
            most_entries: The largest total number of entries of the sets of a tensor.
            most_seconds: The time limit, from now on; None for no limit.
        """
        self.inputs = inputs
        self.dtype = torch.int32 if inputs < 2**31 else torch.int64
        self._numpy_dtype = np.int32 if inputs < 2**31 else np.int64
        self._most_entries = most_entries
        self._most_seconds = most_seconds
        self._started = time.perf_counter()
        self._stamps = np.full(inputs, -1, dtype=np.int64)
        self._next_stamp = 0

    def check_time(self) -> None:
        """Check the time limit.

        Raises:
            DetectionError: It is exceeded.
        """
        most = self._most_seconds
        if most is not None and time.perf_counter() - self._started > most:
            raise DetectionError(f"the pattern was not found within {most:g} seconds")

    def union(self, parts: Sequence[Layers], shape: Sequence[int]) -> Layers:
        """Return the union of layers of one shape, element by element."""
        found = {(id(layer.map), id(layer.table)): layer for part in parts for layer in part}
        layers = tuple(found.values())
        return self.compact(layers, shape) if len(layers) > MOST_LAYERS else layers

    def empty(self, layers: Layers, shape: Sequence[int]) -> Tensor:
        """Return which elements depend on no input: a tensor of truth values."""
        found = torch.ones(tuple(shape), dtype=torch.bool)
        for layer in layers:
            is_none = layer.map < 0
            if layer.table is not None:
                rows = torch.from_numpy(np.diff(layer.table.indptr) == 0)
                rows = torch.cat([rows, rows.new_ones(1)])  # the last one, for -1
                is_none = rows[layer.map.long()]
            found &= is_none
        return found

    def compact(self, layers: Layers, shape: Sequence[int]) -> Layers:
        """Return the same sets as one layer with a table."""
        # Dimensions along which all layers are expanded are written once.
        core = [
            1 if all(layer.map.stride(dim) == 0 for layer in layers) else size
            for dim, size in enumerate(shape)
        ]
        cored = [layer.map[tuple(slice(0, size) for size in core)].reshape(-1) for layer in layers]
        rows = len(cored[0])
        table = self._table([Layer(m, x.table) for m, x in zip(cored, layers, strict=True)], rows)
        return (Layer(torch.arange(rows, dtype=self.dtype).view(core).expand(*shape), table),)

    def grouped(self, layers: Layers, starts: Tensor, members: Tensor) -> Layers:
        """Return the union of groups of elements.

        Args:
            layers: Layers of any shape.
            starts: int64 (groups + 1,): where the members of each group begin.
            members: Flat indices of elements.

        Returns:
            Layers of shape (groups,).
        """
        flat = [Layer(layer.map.reshape(-1), layer.table) for layer in layers]
        table = self._table(flat, len(starts) - 1, starts.numpy(), members)
        return (Layer(torch.arange(table.rows, dtype=self.dtype), table),)

    def table(self, layers: Layers, elements: int) -> Table:
        """Return the sets of all elements in order."""
        flat = [Layer(layer.map.reshape(-1), layer.table) for layer in layers]
        return self._table(flat, elements)

    def _table(
        self,
        layers: Sequence[Layer],
        rows: int,
        starts: NDArray[np.int64] | None = None,
        members: Tensor | None = None,
    ) -> Table:
        offsets, table = self._joined(layers)
        indptr = np.zeros(rows + 1, dtype=np.int64)
        pieces: list[NDArray[Any]] = []
        entries = 0
        for first, last in self._passes(len(layers), rows, starts):
            self.check_time()
            local, visits = _visits(layers, first, last, starts, members)
            ends = indptr[first + 1 : last + 1]
            if starts is None and (offsets < 0).all():
                piece = self._united_layers(visits, ends)
            else:
                piece = self._united_visits(local, visits, offsets, table, ends)
            indptr[first + 1 : last + 1] += entries
            entries += len(piece)
            pieces.append(piece)
            if entries > self._most_entries:
                raise DetectionError(
                    f"the pattern has more than {self._most_entries:,} entries "
                    f"({rows:,} x {self.inputs:,}, of which {last:,} rows were seen)"
                )
        joined = pieces[0] if len(pieces) == 1 else np.concatenate([*pieces, self._none])
        return Table(indptr, joined)

    @property
    def _none(self) -> NDArray[Any]:
        return np.empty(0, dtype=self._numpy_dtype)

    def _passes(
        self, layers: int, rows: int, starts: NDArray[np.int64] | None
    ) -> list[tuple[int, int]]:
        """Return ranges of rows whose visits are few enough to be gathered at once."""
        if not layers or not rows:
            return []
        most = max(1, _ELEMENTS_OF_A_PASS // layers)
        if starts is None:
            return [(first, min(first + most, rows)) for first in range(0, rows, most)]
        passes, first = [], 0
        while first < rows:
            last = int(np.searchsorted(starts, starts[first] + most, side="right")) - 1
            last = min(max(last, first + 1), rows)
            passes.append((first, last))
            first = last
        return passes

    def _united_layers(self, visits: NDArray[Any], ends: NDArray[np.int64]) -> NDArray[Any]:
        """Return the members of rows whose layers name inputs; write where each row ends."""
        indices = np.empty(visits.size, dtype=self._numpy_dtype)
        return indices[: union_of_layers(visits, indices, ends)].copy()

    def _united_visits(
        self,
        starts: NDArray[np.int64],
        visits: NDArray[Any],
        offsets: NDArray[np.int64],
        table: Table,
        ends: NDArray[np.int64],
    ) -> NDArray[Any]:
        """Return the members of rows that visit tables; write where each row ends."""
        rows = len(ends)
        # A row cannot have more members than there are inputs.
        bound = min(bound_of_unions(visits, offsets, table.indptr), rows * self.inputs)
        if bound > 4 * self._most_entries:
            raise DetectionError(f"the pattern has more than {self._most_entries:,} entries")
        indices = np.empty(bound, dtype=self._numpy_dtype)
        count = union_of_visits(
            visits, starts, offsets, table.indptr, table.indices,
            self._stamps, self._next_stamp, indices, ends,
        )  # fmt: skip
        self._next_stamp += rows
        return indices[:count].copy()

    def _joined(self, layers: Sequence[Layer]) -> tuple[NDArray[np.int64], Table]:
        """Return where each layer's table begins in a joint table (-1 for none), and that table."""
        tables = list({id(layer.table): layer.table for layer in layers if layer.table}.values())
        begins: dict[int, int] = {}
        rows = 0
        for table in tables:
            begins[id(table)] = rows
            rows += table.rows
        offsets = np.array(
            [-1 if layer.table is None else begins[id(layer.table)] for layer in layers],
            dtype=np.int64,
        )
        if len(tables) == 1:
            return offsets, tables[0]
        indptr, entries = [np.zeros(1, dtype=np.int64)], 0
        for table in tables:
            indptr.append(table.indptr[1:] + entries)
            entries += len(table.indices)
        indices = np.concatenate([*(table.indices for table in tables), self._none])
        return offsets, Table(np.concatenate(indptr), indices)


def _visits(
    layers: Sequence[Layer],
    first: int,
    last: int,
    starts: NDArray[np.int64] | None,
    members: Tensor | None,
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return which elements of the layers rows first to last read.

    Returns:
        int64 (rows + 1,): where the visits of each row begin; and (layers, visits): what each
        layer holds there.
    """
    if starts is None or members is None:
        local = np.arange(last - first + 1, dtype=np.int64)
        parts = [layer.map[first:last] for layer in layers]
    else:
        local = starts[first : last + 1] - starts[first]
        chosen = members[int(starts[first]) : int(starts[last])].long()
        parts = [layer.map[chosen] for layer in layers]
    return local, torch.stack(parts).numpy()
