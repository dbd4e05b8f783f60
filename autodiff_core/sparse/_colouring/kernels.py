"""Compiled greedy colouring in a given order, on compressed rows and columns.

Sources:
    A. H. Gebremedhin, F. Manne, A. Pothen, What color is your Jacobian? Graph coloring for
    computing derivatives, SIAM Review 47 (2005), 629-705.
    A. H. Gebremedhin, A. Tarafdar, F. Manne, A. Pothen, New acyclic and star coloring algorithms
    with application to computing Hessians, SIAM Journal on Scientific Computing 29 (2007),
    1042-1072.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def partial_distance_two(row_starts, columns, column_starts, rows, order, chosen):
    """Colour columns so that no two with an entry in a common row share a colour.

    Args:
        row_starts: int64 (rows + 1,).
        columns: The columns of the entries, row by row.
        column_starts: int64 (columns + 1,).
        rows: The rows of the entries, column by column.
        order: The columns to colour, in the order in which they receive colours.
        chosen: bool (rows,): the rows that are taken into account.

    Returns:
        int32 (columns,), colours from 0; -1 for a column that is not in the order, or has no
        entry in a chosen row.
    """
    size = len(column_starts) - 1
    colours = np.full(size, -1, dtype=np.int32)
    forbidden = np.full(size + 1, -1, dtype=np.int64)
    for column in order:
        is_empty = True
        for k in range(column_starts[column], column_starts[column + 1]):
            row = rows[k]
            if not chosen[row]:
                continue
            is_empty = False
            for e in range(row_starts[row], row_starts[row + 1]):
                other = colours[columns[e]]
                if other >= 0:
                    forbidden[other] = column
        if is_empty:
            continue
        colour = 0
        while forbidden[colour] == column:
            colour += 1
        colours[column] = colour
    return colours


@njit(cache=True)
def star(starts, neighbours, order):
    """Return a star colouring of a graph.

    Neighbours differ, and a path of four vertices has at least three colours, so any two colour
    classes span a forest of stars. The algorithm stores for each edge the two-coloured star that
    contains it, and for each star its hub.

    Args:
        starts: int64 (vertices + 1,), symmetric pattern.
        neighbours: The neighbours of each vertex; a vertex may be its own.
        order: The vertices in the order in which they receive colours.

    Returns:
        int32 (vertices,), colours from 0.
    """
    size = len(starts) - 1
    colours = np.full(size, -1, dtype=np.int32)
    forbidden = np.full(size + 1, -1, dtype=np.int64)
    treated = np.full(size, -1, dtype=np.int64)
    # For each colour the first neighbour with it; valid for the vertex in first_vertex.
    first_vertex = np.full(size + 1, -1, dtype=np.int64)
    first_neighbour = np.full(size + 1, -1, dtype=np.int64)
    first_edge = np.full(size + 1, -1, dtype=np.int64)
    mirror = _mirror(starts, neighbours)
    star_of = np.full(len(neighbours), -1, dtype=np.int64)
    hub = np.full(len(neighbours), -1, dtype=np.int64)
    stars = 0
    for vertex in order:
        for e in range(starts[vertex], starts[vertex + 1]):
            near = neighbours[e]
            if near == vertex or colours[near] < 0:
                continue
            colour = colours[near]
            forbidden[colour] = vertex
            if first_vertex[colour] == vertex:
                # Two neighbours of one colour: vertex becomes their hub, so none of their
                # neighbours may share its colour.
                other = first_neighbour[colour]
                if treated[other] != vertex:
                    _forbid_around(other, vertex, starts, neighbours, colours, forbidden)
                    treated[other] = vertex
                _forbid_around(near, vertex, starts, neighbours, colours, forbidden)
                treated[near] = vertex
            else:
                first_vertex[colour] = vertex
                first_neighbour[colour] = near
                first_edge[colour] = e
                for g in range(starts[near], starts[near + 1]):
                    far = neighbours[g]
                    if far == vertex or colours[far] < 0:
                        continue
                    if far == near:
                        continue
                    # The far vertex is the hub of a star of which near is a spoke.
                    if hub[star_of[g]] == far:
                        forbidden[colours[far]] = vertex
        colour = 0
        while forbidden[colour] == vertex:
            colour += 1
        colours[vertex] = colour
        for e in range(starts[vertex], starts[vertex + 1]):
            near = neighbours[e]
            if near == vertex or colours[near] < 0:
                continue
            joined = False
            for g in range(starts[near], starts[near + 1]):
                far = neighbours[g]
                if far != vertex and far != near and colours[far] == colour:
                    hub[star_of[g]] = near
                    star_of[e] = star_of[g]
                    joined = True
                    break
            if not joined:
                other = first_neighbour[colours[near]]
                other_edge = first_edge[colours[near]]
                if other != near and star_of[other_edge] >= 0:
                    hub[star_of[other_edge]] = vertex
                    star_of[e] = star_of[other_edge]
                else:
                    star_of[e] = stars
                    hub[stars] = -1
                    stars += 1
            star_of[mirror[e]] = star_of[e]
    return colours


@njit(cache=True)
def _forbid_around(centre, vertex, starts, neighbours, colours, forbidden):
    for g in range(starts[centre], starts[centre + 1]):
        far = neighbours[g]
        if far != vertex and colours[far] >= 0:
            forbidden[colours[far]] = vertex


@njit(cache=True)
def _mirror(starts, neighbours):
    """Return for each entry (i, j) of a symmetric pattern the position of (j, i)."""
    mirror = np.empty(len(neighbours), dtype=np.int64)
    filled = starts[:-1].copy()
    # Going through the rows in order visits the entries of each column in order.
    for row in range(len(starts) - 1):
        for e in range(starts[row], starts[row + 1]):
            other = neighbours[e]
            mirror[e] = filled[other]
            filled[other] += 1
    return mirror


@njit(cache=True)
def symmetric_sources(starts, neighbours, colours):
    """Return the compressed number from which each entry of a star-coloured matrix is read.

    Entry (i, j) is isolated in the compressed column of j's colour at row i if no other neighbour
    of i has that colour; otherwise, by symmetry, in that of i's colour at row j.

    Returns:
        int64 (entries,): colour * size + row, or -1 where the colouring determines no number.
    """
    size = len(starts) - 1
    sources = np.empty(len(neighbours), dtype=np.int64)
    # How often each colour occurs in a row.
    seen = np.zeros(colours.max() + 1 if size else 1, dtype=np.int64)
    alone = np.zeros(len(neighbours), dtype=np.bool_)
    for row in range(size):
        for e in range(starts[row], starts[row + 1]):
            seen[colours[neighbours[e]]] += 1
        for e in range(starts[row], starts[row + 1]):
            alone[e] = seen[colours[neighbours[e]]] == 1
        for e in range(starts[row], starts[row + 1]):
            seen[colours[neighbours[e]]] = 0
    mirror = _mirror(starts, neighbours)
    for row in range(size):
        for e in range(starts[row], starts[row + 1]):
            column = neighbours[e]
            if alone[e]:
                sources[e] = np.int64(colours[column]) * size + row
            elif alone[mirror[e]]:
                sources[e] = np.int64(colours[row]) * size + column
            else:
                sources[e] = -1
    return sources


@njit(cache=True)
def direct_sources(starts, columns, column_colours, row_colours, pushed, pulled, height, width):
    """Return the compressed number from which each entry is read, by columns, rows or both.

    Args:
        starts: int64 (rows + 1,).
        columns: The columns of the entries, row by row.
        column_colours: int32 (columns,); a single -1 if columns have no colours.
        row_colours: int32 (rows,); a single -1 if rows have no colours.
        pushed: The number of colours of columns.
        pulled: The number of colours of rows.
        height: The number of rows.
        width: The number of columns.

    Returns:
        int64 (entries,): colour * height + row for a colour of columns, pushed * height +
        colour * width + column for one of rows; -1 where the colouring determines no number.
    """
    sources = np.full(len(columns), -1, dtype=np.int64)
    if pulled:
        # The last row of a colour with an entry in a column, and whether another row has one too.
        owner = np.full(pulled * width, -1, dtype=np.int64)
        shared = np.zeros(pulled * width, dtype=np.bool_)
        for row in range(height):
            colour = row_colours[row]
            if colour < 0:
                continue
            for e in range(starts[row], starts[row + 1]):
                place = np.int64(colour) * width + columns[e]
                if owner[place] >= 0:
                    shared[place] = True
                owner[place] = row
        for row in range(height):
            colour = row_colours[row]
            if colour < 0:
                continue
            for e in range(starts[row], starts[row + 1]):
                place = np.int64(colour) * width + columns[e]
                if not shared[place]:
                    sources[e] = pushed * np.int64(height) + place
    if pushed:
        seen = np.zeros(pushed, dtype=np.int64)
        for row in range(height):
            for e in range(starts[row], starts[row + 1]):
                colour = column_colours[columns[e]]
                if colour >= 0:
                    seen[colour] += 1
            for e in range(starts[row], starts[row + 1]):
                colour = column_colours[columns[e]]
                if colour >= 0 and seen[colour] == 1 and sources[e] < 0:
                    sources[e] = np.int64(colour) * height + row
            for e in range(starts[row], starts[row + 1]):
                colour = column_colours[columns[e]]
                if colour >= 0:
                    seen[colour] = 0
    return sources


@njit(cache=True)
def distance_two_degrees(row_starts, columns, column_starts, rows):
    """Return how many columns each column shares a row with, counted with repetition."""
    size = len(column_starts) - 1
    degrees = np.zeros(size, dtype=np.int64)
    for column in range(size):
        for k in range(column_starts[column], column_starts[column + 1]):
            row = rows[k]
            degrees[column] += row_starts[row + 1] - row_starts[row] - 1
    return degrees


@njit(cache=True)
def bucket_order(row_starts, columns, column_starts, rows, degrees, is_smallest_last):
    """Return an order of columns by a degree that changes as the order grows.

    Smallest-last repeatedly takes the column with the fewest neighbours among the remaining ones,
    and returns the columns in reverse; incidence-degree repeatedly takes the column with the most
    neighbours among those already taken.

    Args:
        row_starts: int64 (rows + 1,).
        columns: The columns of the entries, row by row.
        column_starts: int64 (columns + 1,).
        rows: The rows of the entries, column by column.
        degrees: int64 (columns,): the initial degrees; overwritten.
        is_smallest_last: Whether the order is smallest-last, else incidence-degree.
    """
    size = len(degrees)
    order = np.empty(size, dtype=np.int64)
    most = 0
    for degree in degrees:
        most = max(most, degree)
    if not is_smallest_last:
        degrees[:] = 0
    # Doubly linked lists of the columns of each degree.
    head = np.full(most + 1, -1, dtype=np.int64)
    following = np.full(size, -1, dtype=np.int64)
    before = np.full(size, -1, dtype=np.int64)
    for column in range(size - 1, -1, -1):
        degree = degrees[column]
        following[column] = head[degree]
        if head[degree] >= 0:
            before[head[degree]] = column
        head[degree] = column
    is_taken = np.zeros(size, dtype=np.bool_)
    at = 0 if is_smallest_last else most
    for turn in range(size):
        if is_smallest_last:
            while head[at] < 0:
                at += 1
        else:
            while head[at] < 0:
                at -= 1
        column = head[at]
        head[at] = following[column]
        if following[column] >= 0:
            before[following[column]] = -1
        is_taken[column] = True
        order[size - 1 - turn if is_smallest_last else turn] = column
        for k in range(column_starts[column], column_starts[column + 1]):
            row = rows[k]
            for e in range(row_starts[row], row_starts[row + 1]):
                other = columns[e]
                if is_taken[other]:
                    continue
                degree = degrees[other]
                if before[other] >= 0:
                    following[before[other]] = following[other]
                else:
                    head[degree] = following[other]
                if following[other] >= 0:
                    before[following[other]] = before[other]
                degree += -1 if is_smallest_last else 1
                degrees[other] = degree
                before[other] = -1
                following[other] = head[degree]
                if head[degree] >= 0:
                    before[head[degree]] = other
                head[degree] = other
                at = min(at, degree) if is_smallest_last else max(at, degree)
    return order
