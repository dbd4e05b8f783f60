import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outputs import ResultWriter, TensorSpec, open_result

SHAPE = (12, 20)


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("axis", ["rows", "columns"])
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    tile=st.none() | st.tuples(st.integers(1, 25), st.integers(1, 25)),
)
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_written_values_are_read_back(
    describe, entries, write_all, axis, dtype, compression, sizes, tile
):
    matrix = entries(SHAPE, dtype)
    description = describe(SHAPE, axis=axis, dtype=dtype, compression=compression, tile=tile)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.h5"
        with ResultWriter.create(path, description) as writer:
            write_all(writer, axis, matrix, sizes)
            assert writer.missing() == []
            assert writer.finish({"seconds": 1.5}) == path
        assert [entry.name for entry in Path(folder).iterdir()] == ["result.h5"]
        with open_result(path) as result:
            assert result.dtype == matrix.dtype
            assert np.array_equal(result[:, :], matrix)
            assert np.array_equal(result[2:5, 7:9], matrix[2:5, 7:9])
        with h5py.File(path) as file:
            stored: Any = file["jacobian"]
            assert np.array_equal(stored[()], matrix)


def test_everything_described_is_read_back(describe, entries, write_all, tmp_path):
    names = ("encoder.0.weight", "a/b", "100%", ".", "", "größe", "with space", "[bold]x[/]")
    columns = tuple(TensorSpec(name, (1, 2), "bfloat16") for name in names)
    point = {name: np.full((1, 2), i, "float32") for i, name in enumerate(names)}
    description = describe(
        (3, 16),
        dtype="float32",
        columns=columns,
        columns_are_tuple=True,
        point=point,
        value={"loss": np.float32(4), "none": np.empty((0, 3))},
        vectors={"v/0": np.ones(3)},
        configuration="name: größe\n",
    )
    matrix = entries((3, 16), "float32")
    with ResultWriter.create(tmp_path / "r.h5", description) as writer:
        write_all(writer, "rows", matrix, [2])
        writer.finish({"chunk_size": [2], "fallbacks": []})
    with open_result(tmp_path / "r.h5") as result:
        assert result.rows == description.rows
        assert result.columns == columns
        assert result.configuration == description.configuration
        assert result.provenance == description.provenance
        assert result.execution == {"chunk_size": [2], "fallbacks": []}
        assert (result.operation, result.strategy) == ("jacobian", "reverse-loop")
        assert (result.function, result.fingerprint) == ("module:function", "0123456789abcdef")
        assert list(result.points) == list(names)
        assert all(np.array_equal(result.points[name], point[name]) for name in names)
        assert result.value["loss"] == 4
        assert result.value["loss"].shape == ()
        assert result.value["none"].shape == (0, 3)
        assert list(result.vectors) == ["v/0"]
        assert np.array_equal(result.block("y", "a/b"), matrix[:, 2:4].reshape(3, 1, 2))
        assert "jacobian of module:function: 3 x 16 float32" in repr(result)


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
def test_matrices_without_entries(describe, tmp_path, shape, axis, compression):
    description = describe(shape, axis=axis, compression=compression)
    with ResultWriter.create(tmp_path / "r.h5", description) as writer:
        assert writer.missing() == []
        writer.finish({})
    with open_result(tmp_path / "r.h5") as result:
        assert result[:, :].shape == shape
        assert result.block("y", "x").shape == shape
        assert result.as_torch().shape == shape


def test_tensors_without_elements_and_scalars(describe, tmp_path):
    rows = (TensorSpec("none", (0, 3), "float64"), TensorSpec("loss", (), "float64"))
    description = describe((1, 2), rows=rows, rows_are_tuple=True)
    with ResultWriter.create(tmp_path / "r.h5", description) as writer:
        writer.write(0, 1, np.array([[1.0, 2.0]]))
        writer.finish({})
    with open_result(tmp_path / "r.h5") as result:
        assert result.block("none", "x").shape == (0, 3, 2)
        assert result.block("loss", "x").tolist() == [1.0, 2.0]


def test_other_programs_find_named_axes_and_plain_tables(describe, tmp_path):
    with ResultWriter.create(tmp_path / "r.h5", describe((2, 10**7), axis="rows")) as writer:
        part = writer.part
    file: Any
    with h5py.File(part) as file:
        scales = [file["jacobian"].dims[axis][0] for axis in (0, 1)]
        assert [scale.name for scale in scales] == ["/row", "/column"]
        assert [scale.shape for scale in scales] == [(2,), (10**7,)]
        assert [scale.id.get_storage_size() for scale in scales] == [0, 0]
        # The text that netCDF-C and h5netcdf compare with, including the full stop.
        assert (
            scales[0]
            .attrs["NAME"]
            .startswith(b"This is a netCDF dimension but not a netCDF variable.")
        )
        name = file["rows"].dtype["name"]
        assert h5py.check_string_dtype(name).length == 1
        assert file["columns"][0].tolist() == (b"x", b"[10000000]", 0, 10**7, b"float64")
        assert file["ledger"].dtype.itemsize == 32
