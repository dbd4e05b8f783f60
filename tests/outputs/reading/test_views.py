"""Views of results in other libraries: xarray, dask and SciPy's operators."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
import xarray

from outputs import (
    MissingDependencyError,
    ResultError,
    ResultWriter,
    TensorSpec,
    UnfinishedResultError,
    open_result,
)
from outputs._reading.views import linear_operator as _operator
from outputs._scanning.sequential import piece_shape, pieces

ROOT = Path(__file__).parents[3]

LAYOUTS = [
    {"axis": "rows"},
    {"axis": "columns"},
    {"axis": "columns", "tile": (7, 5)},
    {"axis": "rows", "tile": (5, 20), "compression": "gzip"},
]
DTYPES = ["float64", "float32", "complex128", "float16", "int64"]


@pytest.fixture
def result(describe, entries, tmp_path, request):
    layout, dtype, shape = getattr(request, "param", ({"axis": "rows"}, "float64", (33, 20)))
    matrix = entries(shape, dtype)
    with ResultWriter.create(tmp_path / "r.h5", describe(shape, dtype=dtype, **layout)) as writer:
        writer.write(0, shape[0 if layout["axis"] == "rows" else 1], matrix)
        writer.finish({"seconds": 1.5})
    with open_result(tmp_path / "r.h5") as opened:
        yield opened, matrix


CASES = [
    *((layout, "float64", shape) for layout in LAYOUTS for shape in ((33, 20), (12, 41), (1, 1))),
    *((LAYOUTS[2], dtype, (33, 20)) for dtype in DTYPES),
]


@pytest.mark.parametrize("result", CASES, indirect=True)
def test_operators_multiply_as_the_matrix_does(result, entries, monkeypatch):
    opened, matrix = result
    monkeypatch.setattr(_operator, "pieces", lambda m: pieces(m, piece_shape(m, 600)))
    operator = opened.as_linear_operator()
    rows, columns = matrix.shape
    assert operator.shape == matrix.shape
    dense = matrix.astype(operator.dtype)
    tolerance: dict[str, Any] = {"rtol": 1e-5 if dense.dtype == np.float32 else 1e-12, "atol": 1e-5}
    for dtype in ("float64", "complex128"):
        right, left = entries((columns, 3), dtype), entries((rows, 2), dtype)
        np.testing.assert_allclose(operator @ right, dense @ right, **tolerance)
        np.testing.assert_allclose(operator.rmatmat(left), dense.conj().T @ left, **tolerance)
        np.testing.assert_allclose(operator.matvec(right[:, 0]), dense @ right[:, 0], **tolerance)
        np.testing.assert_allclose(
            operator.rmatvec(left[:, 0]), dense.conj().T @ left[:, 0], **tolerance
        )


@pytest.mark.parametrize("layout", LAYOUTS[:3])
def test_a_product_reads_every_byte_once(describe, tmp_path, monkeypatch, layout):
    with ResultWriter.create(tmp_path / "r.h5", describe((33, 20), **layout)) as writer:
        writer.write(0, 33 if layout["axis"] == "rows" else 20, np.ones((33, 20)))
        writer.finish({})
    read = []

    def counted(matrix):
        for region, values in pieces(matrix, piece_shape(matrix, 600)):
            read.append(values.size)
            yield region, values

    monkeypatch.setattr(_operator, "pieces", counted)
    with open_result(tmp_path / "r.h5") as opened:
        opened.as_linear_operator().matmat(np.ones((20, 4)))
        assert sum(read) == 33 * 20
        opened.as_linear_operator().rmatmat(np.ones((33, 4)))
        assert sum(read) == 2 * 33 * 20


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_lanczos_finds_the_values_of_a_matrix_on_disk(describe, entries, tmp_path, axis):
    matrix = entries((120, 120), "float64")
    matrix = matrix + matrix.T
    with ResultWriter.create(tmp_path / "r.h5", describe(matrix.shape, axis=axis)) as writer:
        writer.write(0, 120, matrix)
        writer.finish({})
    start = np.ones(120)
    with open_result(tmp_path / "r.h5") as opened:
        operator = opened.as_linear_operator()
        eigenvalues = scipy.sparse.linalg.eigsh(
            operator, k=6, which="BE", v0=start, return_eigenvectors=False
        )
        singular = scipy.sparse.linalg.svds(operator, k=4, v0=start, return_singular_vectors=False)
    exact = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(
        np.sort(np.asarray(eigenvalues)), [*exact[:3], *exact[-3:]], rtol=1e-9
    )
    np.testing.assert_allclose(np.sort(np.asarray(singular)), np.sort(abs(exact))[-4:], rtol=1e-9)


BOUNDED = """
import sys, psutil, numpy as np
from outputs import open_result
with open_result(sys.argv[1]) as result:
    operator = result.as_linear_operator()
    x, y = np.ones((result.shape[1], 2)), np.ones((result.shape[0], 2))
    before, most = psutil.Process().memory_info().rss, 0
    import threading, time
    done = threading.Event()
    peaks = []
    def watch():
        while not done.wait(0.002):
            peaks.append(psutil.Process().memory_info().rss)
    watcher = threading.Thread(target=watch)
    watcher.start()
    operator @ x
    operator.rmatmat(y)
    done.set()
    watcher.join()
print(max(peaks) - before)
"""


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_products_take_little_memory(large, axis):
    growth = subprocess.run(
        [sys.executable, "-c", BOUNDED, large[axis]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert int(growth) < 150 * 2**20


@pytest.mark.parametrize("result", CASES, indirect=True)
def test_dask_reads_by_tiles(result):
    opened, matrix = result
    array = opened.as_dask()
    tile = opened.tile or (1, matrix.shape[1])
    assert array.shape == matrix.shape
    assert all(
        c % t == 0 or c == n for c, t, n in zip(array.chunksize, tile, matrix.shape, strict=True)
    )
    np.testing.assert_array_equal(array.compute(), matrix)
    np.testing.assert_array_equal(array[::3, :2].T.compute(), matrix[::3, :2].T)
    assert array.name == opened.as_dask().name


def test_dask_reads_in_other_processes(result):
    opened, matrix = result
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened))[3:5], matrix[3:5])
    total = opened.as_dask().sum().compute(scheduler="processes", num_workers=1)
    assert total == pytest.approx(matrix.sum())


@pytest.mark.parametrize("result", CASES, indirect=True)
def test_xarray_is_lazy_and_knows_the_names(result):
    opened, matrix = result
    dataset = opened.as_xarray()
    lazy = dataset["jacobian"]
    assert lazy.dims == ("row", "column")
    assert not lazy.variable._in_memory
    np.testing.assert_array_equal(lazy[::-2, [0, -1]].values, matrix[::-2][:, [0, -1]])
    np.testing.assert_array_equal(lazy.isel(row=0, column=slice(None, None, 2)), matrix[0, ::2])
    assert not lazy.variable._in_memory
    np.testing.assert_array_equal(lazy.values, matrix)
    assert dataset["row_name"].values.tolist() == ["y"]
    assert dataset["column_stop"].values.tolist() == [matrix.shape[1]]
    assert dataset["column_shape"].values.tolist() == [f"[{matrix.shape[1]}]"]
    assert dataset["point_x"].values.tolist() == [0, 1, 2]
    assert dataset["value_y"].item() == 2.5
    assert dataset.attrs["operation"] == "jacobian"
    assert dataset.attrs["provenance_torch"] == "2.13"
    assert '"seconds": 1.5' in dataset.attrs["execution"]


def test_an_xarray_dataset_goes_to_netcdf(result, tmp_path):
    opened, matrix = result
    opened.as_xarray().to_netcdf(tmp_path / "r.nc", engine="h5netcdf")
    with xarray.open_dataset(tmp_path / "r.nc", engine="h5netcdf") as read:
        np.testing.assert_array_equal(read["jacobian"], matrix)


def test_names_with_slashes_and_clashes(describe, tmp_path):
    point = {"a/b": np.zeros(2), "a_b": np.ones((2, 3))}
    with ResultWriter.create(tmp_path / "r.h5", describe(point=point)) as writer:
        writer.write(0, 12, np.ones((12, 20)))
        writer.finish({})
    with open_result(tmp_path / "r.h5") as opened:
        dataset = opened.as_xarray()
    assert dataset["point_a%2Fb"].shape == (2,)
    assert dataset["point_a_b"].shape == (2, 3)
    assert json.loads(dataset.attrs["names"]) == {"point": {"a%2Fb": "a/b"}}


def test_matrices_without_entries(describe, tmp_path):
    description = describe((0, 20), rows=(TensorSpec("y", (0,), "float64"),))
    with ResultWriter.create(tmp_path / "r.h5", description) as writer:
        writer.finish({})
    with open_result(tmp_path / "r.h5") as opened:
        assert opened.as_numpy().shape == (0, 20)
        assert opened.as_dask().compute().shape == (0, 20)
        assert opened.as_xarray()["jacobian"].values.shape == (0, 20)
        operator = opened.as_linear_operator()
        assert operator.matvec(np.ones(20)).shape == (0,)
        assert operator.rmatvec(np.ones(0)).tolist() == [0] * 20


WAYS = {
    "as_xarray": ("xarray", lambda result: result.as_xarray()["jacobian"].values),
    "as_dask": ("dask.array", lambda result: result.as_dask().compute()),
    "as_linear_operator": (
        "scipy.sparse.linalg",
        lambda result: result.as_linear_operator() @ np.ones(20),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_library_that_is_missing_is_named(result, way, monkeypatch):
    monkeypatch.setitem(sys.modules, WAYS[way][0], None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'autodiff-jobs\[reading\]'"):
        getattr(result[0], way)()
    with pytest.raises(ImportError):
        getattr(result[0], way)()


@pytest.mark.parametrize("way", WAYS)
def test_closed_results_are_refused(result, way):
    result[0].close()
    with pytest.raises(ResultError, match="closed"):
        WAYS[way][1](result[0])


@pytest.mark.parametrize("way", WAYS)
def test_unfinished_results_are_refused(describe, tmp_path, way):
    with ResultWriter.create(tmp_path / "r.h5", describe()) as writer:
        writer.write(0, 5, np.ones((5, 20)))
        with (
            open_result(writer.path, allow_partial=True) as opened,
            pytest.raises(UnfinishedResultError, match="5 of 12"),
        ):
            WAYS[way][1](opened)
