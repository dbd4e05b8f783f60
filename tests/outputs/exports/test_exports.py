"""Exports, read back with the libraries of each format."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import mat73
import numpy as np
import pytest
import xarray
import zarr

from outputs import ResultWriter, TensorSpec, open_result
from outputs._exports.formats import FORMATS
from outputs.export import main

ROOT = Path(__file__).parents[3]

DENSE = [name for name, form in FORMATS.items() if form.dense]
SHAPE = (33, 20)
LAYOUTS = {
    "bands": {"axis": "rows"},
    "tall tiles": {"axis": "columns", "tile": (16, 4)},
    "wide tiles, gzip": {"axis": "rows", "tile": (5, 20), "compression": "gzip"},
}
TENSORS = {
    "rows": (TensorSpec("a/b", (3, 4), "float64"), TensorSpec("größe", (21,), "float64")),
    "columns": (TensorSpec("x", (20,), "bfloat16"),),
    "point": {"x": np.arange(20.0).reshape(2, 10), "2.w": np.array(3.5), "none": np.zeros((0, 2))},
    "value": {"a/b": np.ones((3, 4)) + 1j, "größe": np.arange(21, dtype="float16")},
}


def write(path, describe, matrix, layout, **changes):
    fields = {**TENSORS, "dtype": str(matrix.dtype), **layout, **changes}
    with ResultWriter.create(path, describe(matrix.shape, **fields)) as writer:
        lines = matrix.shape[0 if layout["axis"] == "rows" else 1]
        if matrix.size:
            writer.write(0, lines, matrix)
        writer.finish({"seconds": 1.5})


def read_numpy(path):
    with np.load(path, allow_pickle=False) as members:
        return members["jacobian"]


def members_of(path) -> Any:
    return zarr.open_group(path, mode="r")


def read_zarr(path):
    return members_of(path)["jacobian"][...]


def read_netcdf(path):
    with xarray.open_dataset(path, engine="h5netcdf") as dataset:
        if "jacobian" in dataset:
            return dataset["jacobian"].values
        return dataset["jacobian_real"].values + 1j * dataset["jacobian_imag"].values


READERS = {
    "npy": lambda path: np.load(path, allow_pickle=False),
    "npz": read_numpy,
    "zarr": read_zarr,
    "mat": lambda path: mat73.loadmat(path)["jacobian"],
    "netcdf": read_netcdf,
}


@pytest.mark.parametrize("to", DENSE)
@pytest.mark.parametrize(
    ("layout", "dtype"),
    [
        *((layout, dtype) for layout in LAYOUTS for dtype in ("float64", "complex128")),
        *(("tall tiles", dtype) for dtype in ("float32", "complex64", "float16")),
    ],
)
def test_other_readers_see_the_same_matrix(describe, entries, tmp_path, capsys, to, layout, dtype):
    matrix = entries(SHAPE, dtype)
    write(tmp_path / "r.h5", describe, matrix, LAYOUTS[layout])
    assert main([str(tmp_path / "r.h5"), "--to", to]) == 0
    target = tmp_path / f"r{FORMATS[to].suffix}"
    assert capsys.readouterr().out == f"{target}\n"
    read = READERS[to](os.fspath(target))
    np.testing.assert_array_equal(read, matrix)
    assert read.dtype.kind == matrix.dtype.kind
    assert {path.name for path in tmp_path.iterdir()} == {"r.h5", target.name}


@pytest.fixture
def written(describe, entries, tmp_path):
    def export(to):
        matrix = entries(SHAPE, "float64")
        write(tmp_path / "r.h5", describe, matrix, LAYOUTS["bands"])
        assert main([str(tmp_path / "r.h5"), "--to", to, "-o", str(tmp_path / "out.mat")]) == 0
        return os.fspath(tmp_path / "out.mat")

    return export


def test_npz_holds_tables_and_arrays(written):
    with np.load(written("npz"), allow_pickle=False) as members:
        assert members["row_name"].tolist() == ["a/b", "größe"]
        assert members["row_shape"].tolist() == ["[3, 4]", "[21]"]
        assert members["row_start"].tolist() == [0, 12]
        assert members["row_stop"].tolist() == [12, 33]
        assert members["column_dtype"].tolist() == ["bfloat16"]
        np.testing.assert_array_equal(members["point_x"], TENSORS["point"]["x"])
        np.testing.assert_array_equal(members["value_a%2Fb"], TENSORS["value"]["a/b"])
        assert members["about_operation"] == "jacobian"
        assert members["about_provenance_seed"] == 7


def test_zarr_holds_tables_and_arrays(written):
    path = written("zarr")
    group = members_of(path)
    attributes = group.attrs.asdict()
    assert attributes["rows"] == [
        {"name": "a/b", "shape": [3, 4], "start": 0, "stop": 12, "dtype": "float64"},
        {"name": "größe", "shape": [21], "start": 12, "stop": 33, "dtype": "float64"},
    ]
    assert json.loads(attributes["execution"]) == {"seconds": 1.5}
    np.testing.assert_array_equal(group["point/x"][...], TENSORS["point"]["x"])
    np.testing.assert_array_equal(group["value/größe"][...], TENSORS["value"]["größe"])
    with xarray.open_zarr(path, consolidated=False) as dataset:
        assert dataset["jacobian"].dims == ("row", "column")


def test_netcdf_holds_tables_and_arrays(written):
    with xarray.open_dataset(written("netcdf"), engine="h5netcdf") as dataset:
        assert dataset["jacobian"].dims == ("row", "column")
        assert dataset["row_name"].values.tolist() == ["a/b", "größe"]
        assert dataset["row_stop"].values.tolist() == [12, 33]
        np.testing.assert_array_equal(dataset["point_x"], TENSORS["point"]["x"])
        np.testing.assert_array_equal(dataset["value_a%2Fb_imag"], np.ones((3, 4)))
        assert dataset.attrs["fingerprint"] == "0123456789abcdef"


def test_mat_holds_tables_and_arrays(written):
    path = written("mat")
    found = mat73.loadmat(path)
    # Columns, as MATLAB's struct2table requires.
    assert found["rows"]["name"] == [["a/b"], ["größe"]]
    assert [shape.tolist() for (shape,) in found["rows"]["shape"]] == [[3, 4], 21]
    assert found["rows"]["first"].tolist() == [1, 13]
    assert found["rows"]["last"].tolist() == [12, 33]
    np.testing.assert_array_equal(found["point"]["x"], TENSORS["point"]["x"])
    assert found["point"]["x2_w"] == 3.5
    assert found["point"]["none"] is None or np.size(found["point"]["none"]) == 0
    np.testing.assert_array_equal(found["value"]["a_b"], TENSORS["value"]["a/b"])
    assert found["about"]["operation"] == "jacobian"


def test_mat_follows_the_conventions_of_matlab(written):
    path = written("mat")
    header = Path(path).read_bytes()[:128]
    assert header.startswith(b"MATLAB 7.3 MAT-file")
    assert header[124:] == b"\x00\x02IM"
    with h5py.File(path) as opened:
        file: Any = opened
        assert file.userblock_size == 512
        assert file["jacobian"].shape == SHAPE[::-1]
        assert file["jacobian"].attrs["MATLAB_class"] == b"double"
        assert file["rows"].attrs["MATLAB_class"] == b"struct"
        assert file["rows/name"].attrs["MATLAB_class"] == b"cell"
        assert file["about/operation"].attrs["MATLAB_int_decode"] == 2
        assert file["value/a_b"].dtype.names == ("real", "imag")
        assert file["point/none"].attrs["MATLAB_empty"] == 1


@pytest.mark.parametrize("to", DENSE)
def test_existing_files_are_replaced_only_on_request(describe, entries, tmp_path, capsys, to):
    write(tmp_path / "r.h5", describe, entries(SHAPE, "float64"), LAYOUTS["bands"])
    command = [str(tmp_path / "r.h5"), "--to", to]
    assert main(command) == 0
    target = tmp_path / f"r{FORMATS[to].suffix}"
    before = target.stat().st_ino
    assert main(command) == 1
    assert "already exists" in capsys.readouterr().err
    assert target.stat().st_ino == before
    assert main([*command, "--force"]) == 0
    assert target.stat().st_ino != before
    np.testing.assert_array_equal(READERS[to](os.fspath(target)), entries(SHAPE, "float64"))
    assert {path.name for path in tmp_path.iterdir()} == {"r.h5", target.name}


@pytest.mark.parametrize("to", DENSE)
@pytest.mark.parametrize("shape", [(0, 20), (1, 1)])
def test_the_smallest_matrices(describe, entries, tmp_path, to, shape):
    tensors = {
        "rows": (TensorSpec("y", shape[:1], "float64"),),
        "columns": (TensorSpec("x", shape[1:], "float64"),),
    }
    write(tmp_path / "r.h5", describe, entries(shape, "float64"), LAYOUTS["bands"], **tensors)
    assert main([str(tmp_path / "r.h5"), "--to", to]) == 0
    read = READERS[to](os.fspath(tmp_path / f"r{FORMATS[to].suffix}"))
    np.testing.assert_array_equal(
        np.ravel([] if read is None else read), entries(shape, "float64").ravel()
    )


def test_mistakes_are_reported_in_one_sentence(describe, tmp_path, capsys, monkeypatch):
    with ResultWriter.create(tmp_path / "part.h5", describe()) as writer:
        writer.write(0, 5, np.ones((5, 20)))
    with ResultWriter.create(tmp_path / "r.h5", describe()) as writer:
        writer.write(0, 12, np.ones((12, 20)))
        writer.finish({})
    source = str(tmp_path / "r.h5")
    cases = (
        ([str(tmp_path / "no.h5")], "There is no file"),
        ([str(tmp_path / "part.h5")], "is unfinished"),
        ([source, "-o", source, "--force"], "is the result itself"),
        ([source, "-o", str(tmp_path / "no" / "r.npy")], "No such file or directory"),
    )
    for arguments, sentence in cases:
        assert main([*arguments, "--to", "npy"]) == 1
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
    monkeypatch.setitem(sys.modules, "zarr", None)
    assert main([source, "--to", "zarr"]) == 1
    assert "pip install 'autodiff-jobs[export]'" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"part.h5.part", "r.h5"}


MEASURED = """
import resource, sys
import outputs.export, outputs._exports.formats
from outputs import open_result
form = outputs._exports.formats.FORMATS[sys.argv[2]]
with open_result(sys.argv[3]) as small:  # so that first-use allocations are not measured
    outputs.export.export(small, form, outputs.export.Path(sys.argv[4] + ".small"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_result(sys.argv[1]) as result:
    outputs.export.export(result, form, outputs.export.Path(sys.argv[4]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize("to", DENSE)
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_exports_take_little_memory(large, describe, entries, tmp_path, to, axis):
    write(tmp_path / "small.h5", describe, entries(SHAPE, "float64"), LAYOUTS["bands"])
    target = str(tmp_path / "out")
    growth = subprocess.run(
        [sys.executable, "-c", MEASURED, large[axis], to, str(tmp_path / "small.h5"), target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert int(growth) < 200 * 2**20
    if to == "npy":
        read = np.load(target, mmap_mode="r")
        with open_result(large[axis]) as result:
            np.testing.assert_array_equal(read[::997], result[::997])


def test_an_interrupted_export_leaves_nothing(large, tmp_path):
    command = [sys.executable, "-m", "outputs.export", large["rows"], "--to", "zarr"]
    target = tmp_path / "out.zarr"
    with subprocess.Popen(
        [*command, "-o", str(target)],
        cwd=ROOT,
        # A process that a shell starts in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as export:
        while not list(tmp_path.iterdir()):
            time.sleep(0.01)
        export.send_signal(signal.SIGINT)
    assert export.returncode == 130
    assert not list(tmp_path.iterdir())
