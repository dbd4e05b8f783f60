import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from outputs import (
    FingerprintMismatchError,
    ResultError,
    ResultExistsError,
    ResultNotFoundError,
    ResultWriter,
    UnfinishedResultError,
    open_result,
    part_path,
    verify_result,
)

FINGERPRINT = "0123456789abcdef"


@pytest.fixture
def writer(describe, tmp_path):
    with ResultWriter.create(tmp_path / "r.h5", describe()) as writer:
        yield writer


def test_missing_ranges_in_order(writer):
    assert writer.missing() == [range(12)]
    for start, stop in [(4, 6), (9, 12), (6, 7), (0, 1)]:
        writer.write(start, stop, np.ones((stop - start, 20)))
    assert writer.missing() == [range(1, 4), range(7, 9)]


@pytest.mark.parametrize(
    ("start", "stop", "shape", "message"),
    [
        (0, 2, (3, 20), r"take \(2, 20\)"),
        (0, 2, (20, 2), r"take \(2, 20\)"),
        (-1, 1, (2, 20), "not within 0:12"),
        (11, 13, (2, 20), "not within 0:12"),
        (3, 3, (0, 20), "not within 0:12"),
        (3, 5, (2, 20), "committed already"),
        (4, 9, (5, 20), "committed already"),
        (5, 6, (1, 20), "committed already"),
        (0, 12, (12, 20), "committed already"),
    ],
)
def test_blocks_that_do_not_fit(writer, start, stop, shape, message):
    writer.write(4, 7, np.ones((3, 20)))
    with pytest.raises(ResultError, match=message):
        writer.write(start, stop, np.ones(shape))
    assert writer.missing() == [range(4), range(7, 12)]


def test_a_block_of_another_dtype(writer):
    with pytest.raises(ResultError, match="float64, the block float32"):
        writer.write(0, 1, np.ones((1, 20), "float32"))


def test_finish_refuses_an_incomplete_result(writer):
    writer.write(0, 3, np.ones((3, 20)))
    with pytest.raises(UnfinishedResultError, match="rows 3:12"):
        writer.finish({})
    assert not writer.path.exists()


@pytest.mark.parametrize(
    ("record", "message"),
    [({"a": object()}, "JSON"), ({"a": float("nan")}, "JSON"), ({"a": "x" * 300_000}, "space")],
)
def test_finish_refuses_an_invalid_record_and_can_be_repeated(writer, record, message):
    writer.write(0, 12, np.ones((12, 20)))
    with pytest.raises(ResultError, match=message):
        writer.finish(record)
    assert writer.finish({}) == writer.path


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_finish_never_replaces_a_finished_file(describe, tmp_path, compression):
    path = tmp_path / "r.h5"
    with ResultWriter.create(path, describe(compression=compression)) as writer:
        writer.write(0, 12, np.ones((12, 20)))
        path.write_bytes(b"somebody's")
        with pytest.raises(ResultExistsError):
            writer.finish({})
    assert path.read_bytes() == b"somebody's"
    path.unlink()
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        writer.finish({})


def test_create_refuses_existing_files(describe, tmp_path, writer):
    with pytest.raises(ResultExistsError, match="unfinished"):
        ResultWriter.create(writer.path, describe())
    (tmp_path / "finished.h5").touch()
    with pytest.raises(ResultExistsError, match="finished"):
        ResultWriter.create(tmp_path / "finished.h5", describe())
    with pytest.raises(ResultNotFoundError, match="no directory"):
        ResultWriter.create(tmp_path / "nowhere" / "r.h5", describe())


def test_a_second_writer_is_refused(writer):
    with pytest.raises(ResultError, match="being written"):
        ResultWriter.resume(writer.path, FINGERPRINT)


def test_a_closed_writer_refuses_to_write(writer):
    writer.close()
    with pytest.raises(ResultError, match="closed"):
        writer.write(0, 1, np.ones((1, 20)))


def test_resume_continues_where_the_writer_stopped(describe, tmp_path):
    path = tmp_path / "r.h5"
    with ResultWriter.create(path, describe(axis="columns")) as writer:
        writer.write(3, 8, np.ones((12, 5)))
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        assert writer.missing() == [range(3), range(8, 20)]


def dataset(file: h5py.File, name: str) -> h5py.Dataset:
    found = file[name]
    assert isinstance(found, h5py.Dataset)
    return found


def _foreign(file: h5py.File) -> None:
    del file.attrs["format"]


def _newer(file: h5py.File) -> None:
    file.attrs["format_version"] = 99


@pytest.mark.parametrize(
    ("change", "fingerprint", "error", "message"),
    [
        (None, "another", FingerprintMismatchError, "another job"),
        (_foreign, FINGERPRINT, ResultError, "not a result"),
        (_newer, FINGERPRINT, ResultError, "format version 99"),
    ],
)
def test_resume_refuses_and_leaves_the_file_alone(writer, change, fingerprint, error, message):
    writer.close()
    if change:
        with h5py.File(writer.part, "r+", libver=("earliest", "v108")) as file:
            change(file)
    before = writer.part.read_bytes(), writer.part.stat().st_mtime_ns
    with pytest.raises(error, match=message):
        ResultWriter.resume(writer.path, fingerprint)
    assert (writer.part.read_bytes(), writer.part.stat().st_mtime_ns) == before


def test_resume_needs_an_unfinished_file(tmp_path):
    with pytest.raises(ResultNotFoundError):
        ResultWriter.resume(tmp_path / "r.h5", FINGERPRINT)
    part_path(tmp_path / "r.h5").write_bytes(b"no HDF5")
    with pytest.raises(ResultError, match="not an HDF5 file"):
        ResultWriter.resume(tmp_path / "r.h5", FINGERPRINT)


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_resume_discards_blocks_whose_data_are_lost(describe, entries, write_all, tmp_path, axis):
    path, matrix = tmp_path / "r.h5", entries((12, 20), "float64")
    with ResultWriter.create(path, describe(axis=axis)) as writer:
        write_all(writer, axis, matrix, [4])
    with h5py.File(part_path(path), "r+", libver=("earliest", "v108")) as file:
        dataset(file, "jacobian")[5, 6] = 0.0
    for _ in range(2):  # the rejection is kept in the file
        with ResultWriter.resume(path, FINGERPRINT) as writer:
            assert writer.missing() == [range(4, 8)]
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        write_all_missing(writer, axis, matrix)
        writer.finish({})
    with h5py.File(path) as file:
        assert np.array_equal(dataset(file, "jacobian")[()], matrix)
        assert set(dataset(file, "ledger")["state"][:3]) == {1}


def write_all_missing(writer: ResultWriter, axis: str, matrix: np.ndarray) -> None:
    for lines in writer.missing():
        part = slice(lines.start, lines.stop)
        writer.write(part.start, part.stop, matrix[part] if axis == "rows" else matrix[:, part])


@pytest.mark.parametrize("tile", [None, (5, 7)])
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_writing_changes_no_metadata(describe, entries, write_all, tmp_path, axis, tile):
    path, matrix = tmp_path / "r.h5", entries((12, 20), "float64")
    with ResultWriter.create(path, describe(axis=axis, tile=tile)) as writer:
        pass
    shutil.copy(writer.part, tmp_path / "sealed")
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        write_all(writer, axis, matrix, [3])
        writer.finish({"seconds": 1})
    with h5py.File(path) as file:
        data = [_extent(dataset(file, name)) for name in ("ledger", "execution", "digests")]
        data += _matrix_extents(dataset(file, "jacobian"))
    before, after = _bytes(tmp_path / "sealed"), _bytes(path)
    assert before.size == after.size
    for offset, size in data:
        before[offset : offset + size] = after[offset : offset + size] = 0
    assert np.array_equal(before, after)


def _matrix_extents(matrix: h5py.Dataset) -> list[tuple[int, int]]:
    if matrix.chunks is None:
        return [_extent(matrix)]
    tiles = [matrix.id.get_chunk_info(i) for i in range(matrix.id.get_num_chunks())]
    return [(tile.byte_offset, tile.size) for tile in tiles]


def _extent(array: h5py.Dataset) -> tuple[int, int]:
    return array.id.get_offset(), array.id.get_storage_size()


def _bytes(path: Path) -> np.ndarray:
    return np.fromfile(path, np.uint8)


@pytest.mark.parametrize("shape", [(2048, 40), (256, 16), (300, 7), (1024, 1), (1, 64)])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_columns_that_were_computed_as_rows_are_transposed(
    describe, entries, tmp_path, shape, dtype
):
    """A power of two of rows takes another path, which copies a few columns at a time."""
    matrix = np.asfortranarray(entries(shape, dtype))
    described = describe(shape, axis="columns", dtype=dtype)
    with ResultWriter.create(tmp_path / "r.h5", described) as writer:
        writer.write(0, shape[1], matrix)
        path = writer.finish({})
    with open_result(path) as result:
        np.testing.assert_array_equal(result[:], matrix)
    assert verify_result(path).ok
