"""Exports of sparse matrices, read back by SciPy, h5py and mat73."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import mat73
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from outputs import TensorSpec, write_sparse
from outputs._exports.formats import FORMATS
from outputs._reading import sparse_result
from outputs.export import main as export

SPARSE = [name for name, form in FORMATS.items() if form.sparse]
SHAPE = (30, 21)


@pytest.fixture(params=["float64", "float32", "complex128"])
def matrix(request):
    found: Any = scipy.sparse.random_array(
        SHAPE, density=0.2, format="csr", rng=np.random.default_rng(0)
    ).astype(request.param)
    found.data *= 1j if request.param == "complex128" else 1
    found.sort_indices()
    return found


@pytest.fixture
def path(matrix, describe, tmp_path, monkeypatch):
    # Several ranges of rows.
    monkeypatch.setattr(sparse_result, "PIECE", 40)
    rows = (TensorSpec("a/b", (4, 5), "float64"), TensorSpec("grö\0ße", (10,), "float64"))
    write_sparse(
        tmp_path / "r.h5",
        describe(SHAPE, rows=rows, dtype=str(matrix.dtype)),
        matrix.indptr,
        matrix.indices,
        matrix.data.__getitem__,
        kind="column",
        colours={"column_colours": np.zeros(SHAPE[1], np.int64)},
        execution={"seconds": 1.0},
    )
    return tmp_path / "r.h5"


def of_anndata(target: Path) -> scipy.sparse.csr_array:
    with h5py.File(target) as opened:
        file: Any = opened
        assert file.attrs["encoding-type"] == "anndata"
        assert file["X"].attrs["encoding-type"] == "csr_matrix"
        names = file["obs"][file["obs"].attrs["_index"]].asstr()[:]
        assert [names[0], names[19], names[20]] == ["a/b[0]", "a/b[19]", "grö\\x00ße[0]"]
        assert file["var/_index"].shape == SHAPE[1:]
        arrays = [file["X"][name][:] for name in ("data", "indices", "indptr")]
        return scipy.sparse.csr_array(tuple(arrays), shape=tuple(file["X"].attrs["shape"]))


READERS = {
    "npz": scipy.sparse.load_npz,
    "mtx": lambda target: scipy.io.mmread(target, spmatrix=False),
    "h5ad": of_anndata,
    "mat": lambda target: mat73.loadmat(target)["jacobian"],
}


@pytest.mark.parametrize("to", SPARSE)
def test_other_readers_see_the_same_matrix(path, matrix, capsys, to):
    assert export([str(path), "--to", to]) == 0
    target = path.with_suffix(FORMATS[to].suffix)
    assert capsys.readouterr().out == f"{target}\n"
    if to == "mat" and matrix.dtype.kind == "c":
        # mat73 does not read complex sparse matrices.
        with h5py.File(target) as opened:
            group: Any = opened["jacobian"]
            data = group["data"]["real"] + 1j * group["data"]["imag"]
            found = scipy.sparse.csc_array((data, group["ir"][:], group["jc"][:]), shape=SHAPE)
    else:
        found = READERS[to](str(target))
    np.testing.assert_array_equal(found.toarray(), matrix.toarray())
    if to == "npz":
        assert isinstance(found, scipy.sparse.csr_array)
        assert found.dtype == matrix.dtype
    assert {each.name for each in path.parent.iterdir()} == {"r.h5", target.name}


@pytest.mark.parametrize("matrix", ["float64"], indirect=True)
def test_formats_that_fit_are_listed_and_others_refused(path, capsys, monkeypatch):
    monkeypatch.setattr("outputs.export._WIDTH_WITHOUT_TERMINAL", 400)
    assert export([str(path)]) == 0
    printed = capsys.readouterr().out
    for name in FORMATS:
        (line,) = [line for line in printed.splitlines() if f"│ {name} " in line]
        assert ("yes" in line) is (name in SPARSE), line
        if name not in SPARSE:
            assert export([str(path), "--to", name]) == 1
            assert "holds no sparse matrix" in capsys.readouterr().err
    assert [each.name for each in path.parent.iterdir()] == ["r.h5"]
