"""Shards: the description in each file, and the result that they are merged into."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from outputs import (
    Probes,
    ResultError,
    ResultWriter,
    Shard,
    UnfinishedResultError,
    open_result,
    verify_result,
)
from outputs._sharding import merging
from outputs.merge import main

EDGES = (0, 7, 8, 20)


def probes_of(matrix: np.ndarray) -> Probes:
    random = np.random.default_rng(1)
    left, right = (random.standard_normal(length) for length in matrix.shape)
    return Probes(right, matrix @ right, left, left @ matrix, tolerance=1e-9)


@pytest.fixture
def matrix(entries):
    return entries((20, 20), "float64")


@pytest.fixture
def put(describe, tmp_path, matrix):
    """Write the shards of a matrix, or some of them, and return their files."""

    def write(axis="rows", edges=EDGES, wanted=None, size=2, finish=True, **changes):
        paths = []
        count = len(edges) - 1
        for index in range(count) if wanted is None else wanted:
            start, stop = edges[index], edges[index + 1]
            path = tmp_path / "shards" / f"{index}-of-{count}" / "result.h5"
            path.parent.mkdir(parents=True)
            fields = {"axis": axis, "probes": probes_of(matrix)} | changes
            shard = Shard(index, count, start, stop)
            description = describe(matrix.shape, shard=shard, **fields)
            with ResultWriter.create(path, description) as writer:
                for first in range(start, stop, size):
                    last = min(first + size, stop)
                    block = matrix[first:last] if axis == "rows" else matrix[:, first:last]
                    writer.write(first, last, block)
                if finish:
                    writer.finish({"seconds": 1.0, "fallbacks": ["slow"], "peak_memory_bytes": 5})
            paths.append(path)
        return paths

    return write


@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize(
    ("at_once", "tile", "compression", "way"),
    [
        (1, None, "none", "copy"),
        (400, None, "none", "copy"),
        (2**30, None, "none", "copy"),
        (400, (3, 4), "none", "copy"),
        (400, None, "gzip", "copy"),
        (1, (3, 4), "gzip", "copy"),
        (1, None, "none", "--virtual"),
        (1, (3, 4), "gzip", "--virtual"),
    ],
)
def test_merged_shards_are_the_matrix(
    put, matrix, tmp_path, monkeypatch, capsys, axis, at_once, tile, compression, way
):
    monkeypatch.setattr(merging, "_BYTES_AT_ONCE", at_once)
    put(axis, tile=tile, compression=compression)
    target = tmp_path / "result.h5"
    flags = [] if way == "copy" else [way]
    assert main([str(tmp_path / "shards"), "-o", str(target), *flags]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    found = verify_result(target)
    assert found.ok, found.problems
    assert found.right_error is not None
    assert found.left_error is not None
    with open_result(target) as result:
        np.testing.assert_array_equal(result[...], matrix)
        np.testing.assert_array_equal(result.block("y", "x"), matrix)
        assert result.shard is None
        assert result.execution["seconds"] == 3.0
        assert result.execution["fallbacks"] == ["slow"]
        assert [s["stop"] for s in result.execution["shards"]] == [7, 8, 20]
        assert result.execution["verification"]["lines_checked"] == 40
        if way == "copy":
            is_tiled = axis == "columns" or compression == "gzip"
            assert result.tile == (tile or ((20, 20) if is_tiled else None))
            assert result.compression == compression
    assert sorted(os.listdir(tmp_path)) == ["result.h5", "shards"]


def test_a_shard_describes_itself(put, matrix):
    path = put("columns")[2]
    with pytest.raises(UnfinishedResultError, match=r"shard 2/3 of a matrix, its columns 8:20"):
        open_result(path)
    with open_result(path, allow_partial=True) as result:
        assert result.shard == Shard(2, 3, 8, 20)
        np.testing.assert_array_equal(result[...], matrix[:, 8:])
        for whole in (result.as_torch, result.dataset, lambda: result.block("y", "x")):
            with pytest.raises(UnfinishedResultError, match=r"outputs\.merge puts the"):
                whole()
    found = verify_result(path)
    assert found.ok
    assert found.lines_checked == 12
    assert found.left_error is not None
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == 2


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_a_shard_is_resumed_where_it_stopped(put, matrix, axis):
    (path,) = put(axis, wanted=[2], finish=False, size=4)
    with ResultWriter.resume(path, "0123456789abcdef") as writer:
        assert writer.missing() == []
        with pytest.raises(ResultError, match="19:21 are not within 8:20"):
            writer.write(19, 21, matrix[19:21])
        writer.finish({})
    with h5py.File(path, "r+") as file:
        dataset: Any = file["jacobian"]
        dataset[0, 0] = dataset[0, 0] + 1
    found = verify_result(path)
    assert found.corrupt == ((0, 4),)


def rows_missing(put, directory):
    put(wanted=[0, 2])
    return r"\Arows 7:8 are in no finished shard\.\Z"


def end_missing(put, directory):
    put("columns", wanted=[0, 1])
    return r"\Acolumns 8:20 are in no finished shard\.\Z"


def unfinished(put, directory):
    put(wanted=[0, 1])
    put(wanted=[2], finish=False)
    return r"rows 8:20 are in no finished .*2-of-3/result.h5.part is unfinished: 12 of 12 rows"


def unreadable(put, directory):
    paths = put()
    paths[1].write_bytes(b"nothing")
    return r"rows 7:8 are in no .*1-of-3/result.h5 is not an HDF5 file"


def overlapping(put, directory):
    put()
    put(edges=(0, 15, 20), wanted=[1])
    return r"2-of-3/result.h5 and .*1-of-2/result.h5 hold the same rows 15:20"


def foreign(put, directory):
    put(wanted=[0, 1])
    put(wanted=[2], fingerprint="feed")
    return r"2-of-3/result.h5 belongs to another job than .*0-of-3/result.h5: .* feed, not 0123"


def of_another_dtype(put, directory):
    paths = put(wanted=[0, 1])
    with h5py.File(paths[1], "r+") as file:
        matrix: Any = file["jacobian"]
        values = matrix[...].astype("float32")
        del file["jacobian"]
        file["jacobian"] = values
    return r"1-of-3/result.h5 has other dtype than .*0-of-3/result.h5: float32"


def damaged(put, directory):
    paths = put()
    with h5py.File(paths[2], "r+") as file:
        matrix: Any = file["jacobian"]
        matrix[1, 0] = 7.0
    return r"2-of-3/result.h5 is damaged: its rows 8:10 do not have .* compute shard 2/3 again"


def nothing(put, directory):
    (directory / "shards").mkdir()
    return "There are no shards in"


@pytest.mark.parametrize(
    "spoilt",
    [
        *(rows_missing, end_missing, unfinished, unreadable, overlapping, foreign),
        *(of_another_dtype, damaged, nothing),
    ],
)
def test_shards_that_cannot_be_merged_are_named(put, tmp_path, capsys, spoilt):
    message = spoilt(put, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.h5*")}
    assert main([str(tmp_path / "shards"), "-o", str(tmp_path / "result.h5")]) == 1
    assert re.search(message, capsys.readouterr().err.strip())
    assert not (tmp_path / "result.h5").exists()
    assert {p: p.read_bytes() for p in before} == before


def test_shards_that_are_not_the_matrix_fail_the_check(put, matrix, tmp_path, capsys):
    wrong = matrix.copy()
    wrong[9, 3] *= -1
    put(probes=probes_of(wrong))
    for flags in ([], ["--virtual"]):
        assert main([str(tmp_path / "shards"), "-o", str(tmp_path / "result.h5"), *flags]) == 1
        errors = capsys.readouterr().err
        assert "do not make up the matrix" in errors
        assert "1 of 20 rows do not multiply with the right probe as they should: 9" in errors
        assert not (tmp_path / "result.h5").exists()


def test_merging_again_leaves_the_result_alone(put, tmp_path, capsys):
    put()
    command = [str(tmp_path / "shards"), "-o", str(tmp_path / "result.h5")]
    assert main(command) == 0
    before = (tmp_path / "result.h5").stat().st_mtime_ns
    assert main(command) == 0
    assert "merged already" in capsys.readouterr().out
    assert (tmp_path / "result.h5").stat().st_mtime_ns == before
    shutil.rmtree(tmp_path / "shards")
    put(fingerprint="feed")
    assert main(command) == 1
    assert "is the result of another job" in capsys.readouterr().err


KILLED = """
import os, signal, sys
from outputs import ResultWriter
from outputs.merge import main
from outputs._sharding import merging as _merging
from outputs._writing import background as _background
_merging._BYTES_AT_ONCE = _background._BYTES_AT_ONCE = 1
write, left = ResultWriter.write, [4]
def killing(self, *block):
    write(self, *block)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
ResultWriter.write = killing
main(sys.argv[1:])
"""


def test_a_killed_merge_is_resumed(put, matrix, tmp_path, monkeypatch):
    put()
    command = [str(tmp_path / "shards"), "-o", str(tmp_path / "result.h5")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], cwd=Path(__file__).parents[3])
    assert killed.returncode == -signal.SIGKILL
    copied: list[int] = []
    monkeypatch.setattr(merging, "_BYTES_AT_ONCE", 1)
    merging.merge_shards([tmp_path / "shards"], tmp_path / "result.h5", advance=copied.append)
    assert 0 < sum(copied) <= matrix.nbytes - 4 * matrix[0].nbytes
    with open_result(tmp_path / "result.h5") as result:
        np.testing.assert_array_equal(result[...], matrix)


@pytest.mark.parametrize("spoilt", ["removed", "replaced", "unfinished"])
def test_a_virtual_result_is_refused_without_its_sources(put, tmp_path, spoilt):
    paths = put()
    target = tmp_path / "virtual.h5"
    merging.merge_shards([tmp_path / "shards"], target, virtual=True)
    if spoilt == "removed":
        paths[1].unlink()
    elif spoilt == "replaced":
        shutil.copy(paths[0], paths[1])
    else:
        paths[1].rename(paths[1].with_name("result.h5.part"))
    with pytest.raises(ResultError, match=r"1-of-3/result.h5 is (missing|not the shard)"):
        open_result(target)


def test_a_virtual_result_moves_with_its_shards(put, matrix, tmp_path):
    put("columns")
    merging.merge_shards([tmp_path / "shards"], tmp_path / "shards" / "whole.h5", virtual=True)
    shutil.move(tmp_path / "shards", tmp_path / "elsewhere")
    with open_result(tmp_path / "elsewhere" / "whole.h5") as result:
        np.testing.assert_array_equal(result[...], matrix)


def test_a_virtual_matrix_without_the_attribute_is_refused(put, tmp_path):
    put()
    target = tmp_path / "virtual.h5"
    merging.merge_shards([tmp_path / "shards"], target, virtual=True)
    with h5py.File(target, "r+") as file:
        del file.attrs["virtual"]
    with pytest.raises(ResultError, match="are in another file"):
        open_result(target)


@pytest.mark.parametrize("way", [[], ["--virtual"]])
def test_an_unfinished_shard_under_a_finished_name_is_refused(put, tmp_path, way, capsys):
    finished = put(wanted=(0, 1))
    (unfinished,) = put(wanted=(2,), finish=False)
    part = unfinished.with_name("result.h5.part")
    part.rename(unfinished)
    target = tmp_path / "whole.h5"
    assert main([*map(str, finished), str(unfinished), "-o", str(target), *way]) == 1
    assert f"{unfinished} is unfinished, whatever its name" in capsys.readouterr().err
    assert not target.exists()


def test_a_virtual_matrix_is_not_read_from_an_unfinished_shard(put, tmp_path, capsys):
    paths = put()
    target = tmp_path / "whole.h5"
    assert main([*map(str, paths), "-o", str(target), "--virtual"]) == 0
    shutil.rmtree(paths[2].parent)
    (unfinished,) = put(wanted=(2,), finish=False)
    unfinished.with_name("result.h5.part").rename(unfinished)
    with pytest.raises(ResultError, match=f"its source {unfinished} is unfinished"):
        open_result(target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axis": "columns"}, "its axis is columns; that of .* is rows"),
        ({"dtype": "float32"}, "its dtype is float32; that of .* is float64"),
    ],
)
def test_an_interrupted_job_of_another_layout_is_named(
    put, describe, matrix, tmp_path, change, message, capsys
):
    paths = put()
    target = tmp_path / "whole.h5"
    with ResultWriter.create(target, describe(matrix.shape, **change)) as writer:
        part = writer.part
    before = part.read_bytes()
    assert main([*map(str, paths), "-o", str(target)]) == 1
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert "Remove whole.h5.part, or name another file with -o" in error
    assert part.read_bytes() == before
