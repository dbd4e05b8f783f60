"""Compiled loops over index arrays: sorted unions of sets."""

from __future__ import annotations

import numpy as np
from numba import njit

_SHORT = 32
"""The largest length of a row that insertion sort sorts faster than the general method."""


@njit(cache=True)
def _sort_row(indices, start, stop):
    """Sort a part of an array in place."""
    if stop - start > _SHORT:
        indices[start:stop] = np.sort(indices[start:stop])
        return
    for i in range(start + 1, stop):
        value = indices[i]
        k = i - 1
        while k >= start and indices[k] > value:
            indices[k + 1] = indices[k]
            k -= 1
        indices[k + 1] = value


@njit(cache=True)
def union_of_layers(maps, indices, ends):
    """Write the sets of rows whose members are in layers, sorted and without repetition.

    Args:
        maps: int32 (layers, rows); negative for none.
        indices: int32, at least maps.size long; receives the members.
        ends: int64 (rows,); receives where each row ends.

    Returns:
        The total number of members.
    """
    count, rows = maps.shape
    position = 0
    for row in range(rows):
        start = position
        for layer in range(count):
            value = maps[layer, row]
            if value < 0:
                continue
            k = position - 1
            while k >= start and indices[k] > value:
                k -= 1
            if k >= start and indices[k] == value:
                continue
            for moved in range(position - 1, k, -1):
                indices[moved + 1] = indices[moved]
            indices[k + 1] = value
            position += 1
        ends[row] = position
    return position


@njit(cache=True)
def bound_of_unions(visits, offsets, table_starts):
    """Return the total number of members of all visited sets, counted with repetition."""
    total = 0
    for layer in range(visits.shape[0]):
        offset = offsets[layer]
        for k in range(visits.shape[1]):
            value = visits[layer, k]
            if value < 0:
                continue
            if offset < 0:
                total += 1
            else:
                total += table_starts[offset + value + 1] - table_starts[offset + value]
    return total


@njit(cache=True)
def union_of_visits(visits, starts, offsets, table_starts, table, stamps, first, indices, ends):
    """Write the sets of rows that visit members and rows of tables, sorted, without repetition.

    Args:
        visits: int32 (layers, visits); a member, or a row of the layer's table; negative for none.
        starts: int64 (rows + 1,); where the visits of each row begin.
        offsets: int64 (layers,); where the layer's table begins among the joint rows, or -1 for
            a layer of members.
        table_starts: int64; the rows of all tables.
        table: int32; their members.
        stamps: int64, one for each possible member; the last row that contains it.
        first: The number of the first row; smaller stamps are those of earlier rows.
        indices: int32; receives the members.
        ends: int64 (rows,); receives where each row ends.

    Returns:
        The total number of members.
    """
    position = 0
    for row in range(len(starts) - 1):
        begin = position
        stamp = first + row
        for visit in range(starts[row], starts[row + 1]):
            for layer in range(visits.shape[0]):
                value = visits[layer, visit]
                if value < 0:
                    continue
                offset = offsets[layer]
                if offset < 0:
                    if stamps[value] != stamp:
                        stamps[value] = stamp
                        indices[position] = value
                        position += 1
                    continue
                for k in range(table_starts[offset + value], table_starts[offset + value + 1]):
                    member = table[k]
                    if stamps[member] != stamp:
                        stamps[member] = stamp
                        indices[position] = member
                        position += 1
        _sort_row(indices, begin, position)
        ends[row] = position
    return position
