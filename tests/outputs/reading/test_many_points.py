"""Results of many points: one dataset of three dimensions."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outputs import (
    ResultDescription,
    ResultError,
    ResultWriter,
    Shard,
    open_result,
    verify_result,
)
from outputs.export import main as export_main
from outputs.merge import main as merge_main
from outputs.show import main as show_main

POINTS, ROWS, COLUMNS = 7, 5, 11


@pytest.fixture
def description(describe) -> ResultDescription:
    return describe((ROWS, COLUMNS), points=POINTS)


@pytest.fixture
def matrices() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((POINTS, ROWS, COLUMNS))


def write(path, description, matrices, sizes=(4,)):
    tall = matrices.reshape(-1, COLUMNS)
    with ResultWriter.create(path, description) as writer:
        start = 0
        for size in [*sizes, *([sizes[-1]] * len(tall))]:
            stop = min(start + size, len(tall))
            if start < stop:
                writer.write(start, stop, tall[start:stop])
            start = stop
        writer.finish({})
    return path


@pytest.mark.parametrize("compression", ["none", "gzip"])
@given(sizes=st.lists(st.integers(1, 17), min_size=1, max_size=6))
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_blocks_of_any_size_are_read_as_matrices_of_points(
    describe, matrices, compression, sizes, tmp_path_factory
):
    path = tmp_path_factory.mktemp("points") / "r.h5"
    description = describe((ROWS, COLUMNS), points=POINTS, compression=compression)
    write(path, description, matrices, sizes)
    with open_result(path) as result:
        assert result.shape == result.dataset().shape == (POINTS, ROWS, COLUMNS)
        assert result.point_count == POINTS
        assert result.matrix_shape == (POINTS * ROWS, COLUMNS)
        assert np.array_equal(result[:], matrices)
        assert np.array_equal(result[2, 1:3, ::2], matrices[2, 1:3, ::2])
        assert np.array_equal(result[-1], matrices[-1])
        assert np.array_equal(result.block("y", "x"), matrices)
        assert np.array_equal(result.as_torch().numpy(), matrices)
        assert np.array_equal(result.as_dask().compute(), matrices)
    report = verify_result(path)
    assert report.ok
    assert report.shape == (POINTS, ROWS, COLUMNS)


def test_the_file_describes_itself_without_our_reader(description, matrices, tmp_path):
    write(tmp_path / "r.h5", description, matrices)
    with h5py.File(tmp_path / "r.h5") as file:
        dataset = file["jacobian"]
        assert isinstance(dataset, h5py.Dataset)
        assert np.array_equal(dataset[()], matrices)
        scales = [dataset.dims[number][0].name for number in range(3)]
        assert scales == ["/point_number", "/row", "/column"]


def test_an_array_with_dimensions_by_name(description, matrices, tmp_path):
    pytest.importorskip("xarray")
    write(tmp_path / "r.h5", description, matrices)
    with open_result(tmp_path / "r.h5") as result:
        array = result.as_xarray()["jacobian"]
        assert array.dims == ("point_number", "row", "column")
        assert np.array_equal(array.sel(point_number=4).values, matrices[4])


def test_an_interrupted_result_is_resumed_within_a_point(description, matrices, tmp_path):
    tall = matrices.reshape(-1, COLUMNS)
    with ResultWriter.create(tmp_path / "r.h5", description) as writer:
        writer.write(0, 8, tall[:8])
    with ResultWriter.resume(tmp_path / "r.h5", description.fingerprint) as writer:
        assert writer.missing() == [range(8, 35)]
        writer.write(8, 35, tall[8:])
        writer.finish({})
    with open_result(tmp_path / "r.h5") as result:
        assert np.array_equal(result[:], matrices)


def test_a_damaged_entry_is_found_and_located(description, matrices, tmp_path):
    path = write(tmp_path / "r.h5", description, matrices)
    with h5py.File(path) as file:
        dataset = file["jacobian"]
        assert isinstance(dataset, h5py.Dataset)
        info = dataset.id.get_chunk_info(0) if dataset.chunks else None
        offset = info.byte_offset if info else dataset.id.get_offset()
    data = bytearray(path.read_bytes())
    data[offset + 8 * (6 * COLUMNS + 2)] ^= 1
    path.write_bytes(data)
    report = verify_result(path)
    assert not report.ok
    assert report.corrupt == ((4, 8),)


def test_shards_of_points_are_merged(describe, matrices, tmp_path):
    tall = matrices.reshape(-1, COLUMNS)
    shards = []
    for index, (start, stop) in enumerate(((0, 13), (13, 21), (21, 35))):
        path = tmp_path / f"{start}.h5"
        description = describe((ROWS, COLUMNS), points=POINTS, shard=Shard(index, 3, start, stop))
        with ResultWriter.create(path, description) as writer:
            writer.write(start, stop, tall[start:stop])
            writer.finish({})
        shards.append(path)
    assert merge_main([*map(str, shards), "-o", str(tmp_path / "whole.h5")]) == 0
    with open_result(tmp_path / "whole.h5") as result:
        assert result.shape == matrices.shape
        assert np.array_equal(result[:], matrices)
    assert verify_result(tmp_path / "whole.h5").ok


def test_functions_of_one_matrix_refuse_many_points(description, matrices, tmp_path, capsys):
    path = write(tmp_path / "r.h5", description, matrices)
    with open_result(path) as result, pytest.raises(ResultError, match=r"result\[0\] is the first"):
        result.as_linear_operator()
    assert export_main([str(path), "--to", "npy", "-o", str(tmp_path / "r.npy")]) == 1
    assert f"{POINTS} points" in capsys.readouterr().err
    assert not (tmp_path / "r.npy").exists()
    assert show_main([str(path)]) == 0
    assert "7" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": 0}, "of one point at least"),
        ({"points": 3, "axis": "columns"}, "arrive by rows"),
        ({"points": 3, "tile": (2, 2)}, "cannot be set"),
    ],
)
def test_impossible_descriptions_are_refused(describe, changes, message):
    with pytest.raises(ResultError, match=message):
        describe((ROWS, COLUMNS), **changes)
