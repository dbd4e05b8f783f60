"""Colourings determine every entry, with as few products as known results allow."""

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from autodiff_core.sparse import Colouring, PatternError, SparsityPattern, colour, decompressed
from autodiff_core.sparse._colouring.colouring import KINDS, ORDERS


def pattern_of(dense):
    return SparsityPattern.from_scipy(scipy.sparse.csr_array(np.asarray(dense)))


@st.composite
def patterns(draw, symmetric=False):
    rows = draw(st.integers(1, 14))
    columns = rows if symmetric else draw(st.integers(1, 14))
    share = draw(st.sampled_from([0.0, 0.1, 0.3, 0.7, 1.0]))
    dense = np.random.default_rng(draw(st.integers(0, 10**6))).random((rows, columns)) < share
    if draw(st.booleans()):
        dense[draw(st.integers(0, rows - 1))] = True
    if draw(st.booleans()):
        dense[:, draw(st.integers(0, columns - 1))] = True
    return pattern_of(dense | dense.T if symmetric else dense)


def recovered(colouring, matrix):
    """Return the matrix read from its products with the colour classes."""
    products = []
    for colours, count, left in (
        (colouring.column_colours, colouring.columns, False),
        (colouring.row_colours, colouring.rows, True),
    ):
        if not count:
            continue
        classes = (colours[:, None] == np.arange(count)).astype(float)
        products.append((matrix.T if left else matrix) @ classes)
    values = decompressed(colouring, [product.T.copy() for product in products])
    return colouring.pattern.to_scipy(values).toarray()


def assert_determines(colouring):
    colouring.check()
    matrix = colouring.pattern.to_scipy().astype(float)
    matrix.data[:] = np.random.default_rng(0).integers(1, 100, len(matrix.data))
    dense = matrix.toarray()
    if colouring.kind == "star":
        dense = np.triu(dense) + np.triu(dense, 1).T
    assert np.array_equal(recovered(colouring, dense), dense)


@given(patterns(), st.sampled_from(["auto", *ORDERS]))
@settings(max_examples=150, deadline=None)
def test_products_determine_every_entry(pattern, order):
    for kind in ("auto", "column", "row", "bidirectional"):
        assert_determines(colour(pattern, kind=kind, order=order))


@given(patterns(symmetric=True), st.sampled_from(["auto", *ORDERS]))
@settings(max_examples=150, deadline=None)
def test_symmetric_products_determine_every_entry(pattern, order):
    colouring = colour(pattern, symmetric=True, order=order)
    assert colouring.kind == "star"
    assert_determines(colouring)
    assert is_star_colouring(pattern, colouring.column_colours)


def is_star_colouring(pattern, colours):
    """Check the definition: neighbours differ, and any path of four vertices has three colours."""
    edges = pattern.to_scipy().toarray()
    np.fill_diagonal(edges, False)
    near = [np.flatnonzero(row) for row in edges]
    for b, c in itertools.product(range(len(edges)), repeat=2):
        if not edges[b, c]:
            continue
        if colours[b] == colours[c]:
            return False
        for a, d in itertools.product(near[b], near[c]):
            if a != c and d not in (b, a) and len({colours[i] for i in (a, b, c, d)}) < 3:
                return False
    return True


def five_point(n):
    line = scipy.sparse.csr_array(np.tri(n, k=1) - np.tri(n, k=-2))
    unit = scipy.sparse.eye_array(n)
    return pattern_of((scipy.sparse.kron(line, unit) + scipy.sparse.kron(unit, line)).toarray())


def arrow(n):
    dense = np.eye(n, dtype=bool)
    dense[0] = dense[:, 0] = True
    return pattern_of(dense)


def tridiagonal(n):
    return pattern_of(np.tri(n, k=1) - np.tri(n, k=-2))


def dense_rows(n):
    dense = np.eye(n, dtype=bool)
    dense[:2] = True
    return pattern_of(dense)


@pytest.mark.parametrize(
    ("pattern", "symmetric", "kind", "colours"),
    [
        (tridiagonal(100), False, "column", 3),
        (tridiagonal(100), True, "star", 3),
        (five_point(20), False, "column", 5),
        (arrow(400), True, "star", 2),
        (arrow(400), False, "bidirectional", 3),
        (dense_rows(300), False, "row", 3),
        (pattern_of(np.ones((3, 40))), False, "row", 3),
        (pattern_of(np.ones((40, 3))), False, "column", 3),
        (pattern_of(np.zeros((5, 4))), False, "column", 0),
        (pattern_of(np.eye(6)), True, "star", 1),
    ],
)
def test_the_number_of_colours_is_the_known_minimum(pattern, symmetric, kind, colours):
    colouring = colour(pattern, symmetric=symmetric)
    assert (colouring.kind, colouring.colours) == (kind, colours)
    assert_determines(colouring)


def test_the_time_for_dense_lines_does_not_grow_with_their_square():
    # 10^10 steps would take minutes.
    size = 10**5
    diagonal = np.arange(size)
    rows = np.concatenate([diagonal, np.zeros(size, int), diagonal])
    columns = np.concatenate([diagonal, diagonal, np.zeros(size, int)])
    matrix = scipy.sparse.coo_array((np.ones(3 * size), (rows, columns))).tocsr()
    pattern = SparsityPattern.from_scipy(matrix)
    assert colour(pattern, symmetric=True).colours == 2
    assert colour(pattern).colours == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_colouring_is_saved_and_loaded(kind, tmp_path):
    colouring = colour(arrow(12), kind=kind)
    colouring.save(tmp_path / "c.npz")
    loaded = Colouring.load(tmp_path / "c.npz")
    assert (loaded.kind, loaded.colours) == (colouring.kind, colouring.colours)
    assert np.array_equal(loaded.sources, colouring.sources)


HOSTILE = {
    "shape": [np.array([9, -9]), np.array([9, 2**62]), np.array(9), np.array(["9", "x"])],
    "indptr": [
        np.r_[1, np.full(9, 27)],
        np.r_[np.zeros(9, int), 2**62],
        np.r_[0, -1, np.full(8, 25)],
        np.full(10, 25, np.uint64),
        np.full(10, 2.5),
        np.array(3),
    ],
    "indices": [
        np.full(25, 9, np.int32),
        np.full(25, -1, np.int32),
        np.full(25, 2**31 - 1, np.int32),
        np.zeros(25, np.int32),
        np.arange(25, dtype=np.uint32),
        np.zeros((25, 1), np.int32),
    ],
    "row_colours": [
        np.full(9, 2**31 - 1, np.int32),
        np.full(9, -2, np.int32),
        np.arange(9, dtype=np.uint32),
        np.arange(9, dtype=np.float64),
        np.zeros((9, 1), np.int32),
    ],
}


@pytest.mark.parametrize("kind", ["row", "star"])
@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, each in HOSTILE.items() for value in each]
)
def test_an_archive_whose_arrays_point_outside_of_the_matrix_is_refused(
    kind, name, value, tmp_path
):
    pattern = tridiagonal(9)
    colouring = colour(pattern, kind=kind)
    colouring.save(tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz") as archive:
        arrays = dict(archive)
    if kind == "star" and name == "row_colours":
        name = "column_colours"
    np.savez(tmp_path / "c.npz", **(arrays | {name: value}))
    with pytest.raises(PatternError):
        Colouring.load(tmp_path / "c.npz")
    if "colours" not in name:
        with pytest.raises(PatternError):
            SparsityPattern.load(tmp_path / "c.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(40), b"text", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "c.npz").write_bytes(content)
    with pytest.raises(PatternError, match=r"c\.npz"):
        SparsityPattern.load(tmp_path / "c.npz")


def test_a_colouring_that_does_not_fit_raises(tmp_path):
    pattern = tridiagonal(9)
    wrong = Colouring(pattern, "column", np.zeros(9, np.int32), None)
    with pytest.raises(PatternError, match="share a colour"):
        wrong.check()
    wrong.save(tmp_path / "c.npz")
    with pytest.raises(PatternError, match=r"c\.npz: two entries"):
        Colouring.load(tmp_path / "c.npz")
    pattern.save(tmp_path / "p.npz")
    with pytest.raises(PatternError, match="holds no colouring"):
        Colouring.load(tmp_path / "p.npz")
    with pytest.raises(PatternError, match="do not fit a pattern"):
        Colouring(pattern, "row", None, np.zeros(4, np.int32)).check()
    with pytest.raises(PatternError, match="symmetric"):
        colour(pattern_of(np.tri(4)), kind="star")
    unknown: Any
    for unknown in ({"kind": "diagonal"}, {"order": "random"}):
        ((option, value),) = unknown.items()
        with pytest.raises(ValueError, match=f"{option}='{value}': valid are"):
            colour(pattern, **unknown)
