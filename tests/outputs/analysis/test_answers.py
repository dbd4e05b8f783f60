"""Answers from a stored matrix, against NumPy and SciPy on the same matrix in memory."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from outputs import (
    ResultError,
    ResultWriter,
    Selection,
    TensorSpec,
    open_result,
    open_sparse_result,
    write_sparse,
)
from outputs._analysis import determinants, gram, quadrature, solutions, spectra
from outputs._analysis.budget import Budget
from outputs._analysis.workspace import Workspace

LAYOUTS = {
    "bands": {"axis": "rows"},
    "tiles": {"axis": "columns", "tile": (64, 16)},
    "gzip": {"axis": "rows", "compression": "gzip"},
}
AMPLE = Budget(2**30)


def stored(path, describe, matrix, layout="bands", **changes):
    fields = {**LAYOUTS[layout], "dtype": str(matrix.dtype), "operation": "hessian", **changes}
    with ResultWriter.create(path, describe(matrix.shape, **fields)) as writer:
        lines = matrix.shape[0 if fields["axis"] == "rows" else 1]
        for start in range(0, lines, 97):
            stop = min(start + 97, lines)
            part = matrix[start:stop] if fields["axis"] == "rows" else matrix[:, start:stop]
            writer.write(start, stop, part)
        writer.finish({"seconds": 1.0})
    return path


def stored_sparse(path, describe, matrix):
    csr = scipy.sparse.csr_array(matrix)
    csr.sort_indices()
    colours = {"column_colours": np.zeros(matrix.shape[1], np.int64)}
    write_sparse(
        path,
        describe(matrix.shape, operation="hessian"),
        csr.indptr,
        csr.indices,
        csr.data.__getitem__,
        kind="column",
        colours=colours,
        execution={"seconds": 1.0},
    )
    return path


def with_spectrum(spectrum, seed=0, dtype="float64"):
    size, random = len(spectrum), np.random.default_rng(seed)
    vectors = random.standard_normal((size, size))
    if np.dtype(dtype).kind == "c":
        vectors = vectors + 1j * random.standard_normal((size, size))
    basis = np.linalg.qr(vectors)[0]
    matrix = basis * spectrum @ basis.conj().T
    return ((matrix + matrix.conj().T) / 2).astype(dtype)


def spectrum_of(size):
    """Return a spectrum with a double and a triple eigenvalue at its ends."""
    values = np.linspace(1, 3, size)
    values[:6] = [0.1, 0.1, 0.3, 0.5, 0.7, 0.8]
    values[-6:] = [5, 7, 8, 9, 9, 9]
    return values


def scant(matrix, columns):
    """Return a budget for so many vectors, but not for the matrix."""
    size = len(matrix)
    assert columns < size
    return Budget(columns * size * matrix.dtype.itemsize)


@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        *((layout, "float64") for layout in LAYOUTS),
        *(("bands", dtype) for dtype in ("float32", "complex128")),
    ],
)
def test_a_matrix_in_memory_gets_lapacks_answers(describe, tmp_path, layout, dtype):
    matrix = with_spectrum(spectrum_of(150) - 0.4, dtype=dtype)
    path = stored(tmp_path / "r.h5", describe, matrix, layout)
    exact = matrix.astype(np.result_type(dtype, np.float64))
    expected = np.linalg.eigvalsh(exact)
    b = np.random.default_rng(1).standard_normal((150, 2))
    with open_result(path) as result:
        close: Any = {"rtol": 1e-11, "atol": 1e-12}
        np.testing.assert_allclose(result.eigenvalues("all"), expected, **close)
        ends = np.r_[expected[:4], expected[-4:]]
        np.testing.assert_allclose(result.eigenvalues(4), ends, **close)
        singular = np.linalg.svd(exact, compute_uv=False)
        np.testing.assert_allclose(result.singular_values(5), singular[:5], **close)
        assert complex(result.trace().values) == pytest.approx(np.trace(exact), rel=1e-12)
        found = result.log_determinant()
        sign, logarithm = np.linalg.slogdet(exact)
        assert float(found) == pytest.approx(logarithm, abs=1e-10)
        assert found.arrays["sign"][0] == pytest.approx(sign)
        assert float(result.condition()) == pytest.approx(np.linalg.cond(exact), rel=1e-9)
        np.testing.assert_allclose(result.solve(b), np.linalg.solve(exact, b), rtol=1e-9)
        np.testing.assert_allclose(result.gram("rows"), exact @ exact.conj().T, **close)
        np.testing.assert_allclose(result.gram("columns"), exact.conj().T @ exact, **close)
        density = result.spectral_density()
        at = density.arrays["at"]
        shares = (expected[:, None] <= at).mean(axis=0)
        inner = np.abs(expected[:, None] - at).min(axis=0) > 1e-6
        np.testing.assert_allclose(np.asarray(density)[inner], shares[inner], atol=1e-12)


@pytest.mark.parametrize("layout", ["bands", "tiles"])
def test_products_alone_find_the_ends_of_a_spectrum(describe, tmp_path, layout):
    matrix = with_spectrum(spectrum_of(300))
    path = stored(tmp_path / "r.h5", describe, matrix, layout)
    with open_result(path) as result:
        work = Workspace(result, scant(matrix, 120))
        found = spectra.eigenvalues(work, 5)
        assert "Lanczos" in found.method
        expected = np.linalg.eigvalsh(matrix)
        # With both copies of the smallest, and all three of the largest.
        np.testing.assert_allclose(found, np.r_[expected[:5], expected[-5:]], atol=1e-10)
        assert (np.asarray(found.error) < 1e-7).all()
        singular = spectra.singular_values(work, 4)
        np.testing.assert_allclose(singular, [9, 9, 9, 8], atol=1e-10)
        condition = spectra.condition(work)
        assert float(condition) == pytest.approx(90, abs=float(condition.error) + 1e-9)


def test_eigenvalues_that_have_not_converged_are_marked(describe, tmp_path):
    # The small end is too dense for products: its values are known to their residuals only.
    matrix = with_spectrum(np.geomspace(1e-9, 1, 300))
    path = stored(tmp_path / "r.h5", describe, matrix)
    with open_result(path) as result:
        found = spectra.eigenvalues(Workspace(result, scant(matrix, 70)), 2)
        assert "2 of 4 have NOT CONVERGED" in found.summary
        exact = np.linalg.eigvalsh(matrix)
        for value, error in zip(found.values, np.asarray(found.error), strict=True):
            assert np.abs(exact - value).min() <= error + 1e-14


@pytest.mark.parametrize(
    ("shift", "method"), [(0.0, "quadrature,"), (-2.0, "quadrature of Aᴴ A")], ids=["SPD", "not"]
)
def test_the_log_determinant_is_within_its_stated_errors(describe, tmp_path, shift, method):
    values = spectrum_of(500) + shift
    # Eigenvalues next to zero take more steps than this test should.
    values[np.abs(values) < 0.1] = 0.1
    matrix = with_spectrum(values)
    path = stored(tmp_path / "r.h5", describe, matrix)
    with open_result(path) as result:
        found = determinants.log_determinant(Workspace(result, scant(matrix, 400)), 16)
        assert method in found.method
        exact = np.log(np.abs(values)).sum()
        assert abs(float(found) - exact) < 4 * float(found.error)
        assert float(found.error) < 15
        assert float(found.facts["statistical_error"]) <= float(found.error)


def test_the_quadrature_bounds_enclose_the_quadratic_form():
    matrix = with_spectrum(np.linspace(0.01, 4, 80))
    signs = 2.0 * np.random.default_rng(1).integers(0, 2, (80, 3)) - 1
    values, vectors = np.linalg.eigh(matrix)
    exact = np.log(values) @ np.square(vectors.T @ signs / np.sqrt(80))
    runs_by_steps = quadrature.lanczos(lambda x: matrix @ x, 80, 3)
    for runs in itertools.islice(runs_by_steps, 4, 30, 5):
        for (nodes, weights, _), a, b, form in zip(
            runs.rules(), runs.diagonal.T, runs.beside.T, exact, strict=True
        ):
            assert weights @ np.log(nodes) >= form - 1e-12
            assert quadrature._radau(a, b, 0.01) <= form + 1e-12


def test_a_spectral_density_by_products_is_within_its_errors(describe, tmp_path):
    values = np.concatenate([np.linspace(-1, -0.5, 150), np.linspace(1, 2, 350)])
    matrix = with_spectrum(values)
    path = stored(tmp_path / "r.h5", describe, matrix)
    with open_result(path) as result:
        found = spectra.spectral_density(Workspace(result, scant(matrix, 400)), 16)
        gap = np.abs(found.arrays["at"]) < 0.3
        deviation = np.abs(np.asarray(found)[gap] - 0.3)
        assert (deviation <= 4 * np.asarray(found.error)[gap] + 1e-12).all()
        assert (np.asarray(found.error)[gap] < 0.03).all()


@pytest.mark.parametrize(
    ("is_symmetric", "method"), [(True, "MINRES"), (False, "LSMR")], ids=["symmetric", "other"]
)
def test_products_alone_solve(describe, tmp_path, is_symmetric, method):
    random = np.random.default_rng(3)
    matrix = with_spectrum(np.r_[-np.linspace(1, 3, 50), np.linspace(1, 3, 250)])
    if not is_symmetric:
        matrix = matrix @ np.linalg.qr(random.standard_normal((300, 300)))[0]
    path = stored(tmp_path / "r.h5", describe, matrix, operation="jacobian")
    b = random.standard_normal((300, 2))
    with open_result(path) as result:
        found = solutions.solve(Workspace(result, scant(matrix, 100)), b)
    assert method in found.method
    np.testing.assert_allclose(found, np.linalg.solve(matrix, b), atol=1e-9)


@pytest.mark.parametrize("shape", [(700, 9), (9, 700)])
@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_a_thin_matrix_has_all_singular_values_in_one_pass(
    describe, entries, tmp_path, shape, dtype
):
    matrix = entries(shape, dtype)
    path = stored(tmp_path / "r.h5", describe, matrix, operation="jacobian")
    with open_result(path) as result:
        work = Workspace(result, Budget(8 * 9 * 9 * 16))
        found = spectra.singular_values(work, None)
        assert "one pass" in found.method
        exact = matrix.astype(np.result_type(dtype, np.float64))
        np.testing.assert_allclose(found, np.linalg.svd(exact, compute_uv=False), rtol=1e-12)
        assert float(spectra.condition(work)) == pytest.approx(np.linalg.cond(exact), rel=1e-11)


@pytest.mark.parametrize("side", ["rows", "columns"])
def test_products_of_lines_are_put_together_from_tiles(describe, entries, tmp_path, side):
    matrix = entries((70, 90), "complex128")
    path = stored(tmp_path / "r.h5", describe, matrix, "tiles", operation="jacobian")
    with open_result(path) as result:
        work = Workspace(result, Budget(3 * 16 * 25**2))
        whole = np.zeros((70, 70) if side == "rows" else (90, 90), complex)
        for rows, columns, tile in gram.gram(work, side).tiles():  # pyright: ignore
            assert tile.size <= 25**2
            whole[rows, columns], whole[columns, rows] = tile, tile.conj().T
    adjoint = matrix.conj().T
    np.testing.assert_allclose(whole, matrix @ adjoint if side == "rows" else adjoint @ matrix)


@pytest.mark.parametrize("columns", [range(4), range(1, 5)])
def test_a_part_of_a_matrix_is_square_where_its_rows_are_its_columns(describe, tmp_path, columns):
    whole = (TensorSpec("x", (9,), "float64"),)
    selection = Selection(np.arange(4), np.array(columns), whole, whole)
    part = np.diag(np.arange(1.0, 5))
    tensors = (TensorSpec("x", (4,), "float64"),)
    path = stored(
        tmp_path / "r.h5", describe, part, rows=tensors, columns=tensors, selection=selection
    )
    with open_result(path) as result:
        if columns == range(4):
            assert float(result.trace()) == 10
        else:
            with pytest.raises(ResultError, match="rows are not its columns has no trace"):
                result.trace()


def test_points_of_different_sizes_are_refused_by_name():
    with (
        open_result(Path(__file__).parents[1] / "data" / "format-7.1.h5") as result,
        pytest.raises(ResultError, match="points of different sizes"),
    ):
        result.singular_values(1)


def test_each_of_many_points_has_its_answers(describe, tmp_path):
    matrices = np.stack([with_spectrum(spectrum_of(12) + n, seed=n) for n in range(5)])
    path = tmp_path / "r.h5"
    with ResultWriter.create(
        path, describe((12, 12), operation="hessian", points=5, point={}, value={})
    ) as writer:
        writer.write(0, 60, matrices.reshape(60, 12))
        writer.finish({})
    b = np.random.default_rng(0).standard_normal((5, 12))
    with open_result(path) as result:
        np.testing.assert_allclose(result.eigenvalues("all"), np.linalg.eigvalsh(matrices))
        assert result.eigenvalues(2).values.shape == (5, 4)
        np.testing.assert_allclose(result.trace(), np.trace(matrices, axis1=1, axis2=2))
        np.testing.assert_allclose(result.log_determinant(), np.linalg.slogdet(matrices)[1])
        np.testing.assert_allclose(result.condition(), np.linalg.cond(matrices))
        np.testing.assert_allclose(
            result.solve(b), np.linalg.solve(matrices, b[..., None])[..., 0], rtol=1e-9
        )
        np.testing.assert_allclose(result.gram("rows"), matrices @ matrices)
        with pytest.raises(ResultError, match="many points"):
            spectra.eigenvalues(Workspace(result, Budget(1000)), 2)


@pytest.mark.parametrize("budget", ["dense", "kept", "not kept"])
def test_a_sparse_matrix_has_the_same_answers(describe, tmp_path, budget):
    size = 1500 if budget != "dense" else 200
    matrix = scipy.sparse.diags_array(  # pyright: ignore
        [np.full(size - 1, -1.0), np.linspace(2.5, 6, size), np.full(size - 1, -1.0)],
        offsets=[-1, 0, 1],  # pyright: ignore
    ).tocsr()
    path = stored_sparse(tmp_path / "r.h5", describe, matrix)
    dense = matrix.toarray()
    free = {"dense": 2**30, "kept": size * size * 6, "not kept": 140 * size * 8}[budget]
    if budget == "not kept":
        free = min(free, 2 * 16 * 3 * size)
    b = np.ones(size)
    with open_sparse_result(path) as result:
        work = Workspace(result, Budget(free))
        assert float(determinants.trace(work)) == pytest.approx(np.trace(dense))
        if budget != "not kept":
            found = spectra.eigenvalues(work, 3)
            exact = np.linalg.eigvalsh(dense)
            np.testing.assert_allclose(found, np.r_[exact[:3], exact[-3:]], atol=1e-8)
            np.testing.assert_allclose(solutions.solve(work, b), np.linalg.solve(dense, b))
        np.testing.assert_allclose(work.product(dense[:, :2]), dense @ dense[:, :2], atol=1e-12)
        np.testing.assert_allclose(work.adjoint(dense[:, :2]), dense.T @ dense[:, :2], atol=1e-12)


def test_bounds_for_rounding_are_those_of_the_stored_numbers(tmp_path, describe):
    exact = with_spectrum(np.geomspace(1, 1e4, 40))
    path = stored(tmp_path / "r.h5", describe, exact.astype("float32"))
    with open_result(path) as result:
        work = Workspace(result, AMPLE)
        truth = np.linalg.eigvalsh(exact)
        for answer, expected in (
            (spectra.eigenvalues(work, None), truth),
            (spectra.singular_values(work, None), truth[::-1]),
            (spectra.condition(work), 1e4),
            (determinants.trace(work), truth.sum()),
            (determinants.log_determinant(work), np.log(truth).sum()),
        ):
            deviation = np.abs(answer.values - expected).max()
            assert 1e-10 < deviation <= np.max(answer.error), answer.name
    ill = stored(
        tmp_path / "i.h5", describe, with_spectrum(np.geomspace(1, 1e9, 40), dtype="float32")
    )
    with open_result(ill) as result:
        work = Workspace(result, AMPLE)
        for ask in (determinants.log_determinant, lambda work: solutions.solve(work, np.ones(40))):
            with pytest.raises(ResultError, match=r"singular to working precision.* 1.2e-07"):
                ask(work)


def test_the_condition_number_of_zeros_is_infinite(tmp_path, describe):
    with open_result(stored(tmp_path / "r.h5", describe, np.zeros((3, 3)))) as result:
        answer = spectra.condition(Workspace(result, AMPLE))
    assert answer.values == np.inf
    assert answer.error == np.inf
