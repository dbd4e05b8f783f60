"""Failures of the disk: a loss of power between two fsyncs, and a full disk."""

import contextlib
import ctypes
import errno
import os
import random
import shutil
import stat
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import outputs._writing.direct_writes
from outputs import (
    Probes,
    ResultError,
    ResultWriter,
    TensorSpec,
    open_result,
    part_path,
    verify_result,
)
from outputs._format.creation import stored_bytes
from outputs._storage.files import open_file

FINGERPRINT = "0123456789abcdef"
PAGE = 4096


class Disk:
    """A simulated disk: a file as of the last fsync, and some of the pages written since."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.synced = b""

    def fsync(self, descriptor: int) -> None:
        if part_path(self.path).exists():
            if os.fstat(descriptor).st_ino == part_path(self.path).stat().st_ino:
                self.synced = part_path(self.path).read_bytes()
        elif Path(f"/proc/self/fd/{descriptor}").resolve().suffix == ".new":
            self.synced = Path(f"/proc/self/fd/{descriptor}").resolve().read_bytes()

    def cut(self, kept: float, seed: int) -> None:
        """Replace the file by what a loss of power leaves; each later page is kept at random."""
        current = bytearray(part_path(self.path).read_bytes())
        assert len(current) == len(self.synced)
        chance = random.Random(seed)
        for start in range(0, len(current), PAGE):
            if chance.random() >= kept:
                current[start : start + PAGE] = self.synced[start : start + PAGE]
        part_path(self.path).write_bytes(current)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    disk = Disk(tmp_path / "r.h5")
    monkeypatch.setattr(os, "fsync", disk.fsync)
    return disk


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize("fsync", ["block", "end"])
def test_a_loss_of_power(describe, entries, disk, fsync, axis, kept, seed):
    matrix = entries((300, 400), "float64")
    committed = {}
    with ResultWriter.create(disk.path, describe(matrix.shape, axis=axis), fsync=fsync) as writer:
        lines = matrix.shape[0 if axis == "rows" else 1]
        order = list(range(0, lines, 20))
        random.Random(seed).shuffle(order)
        for start in order[:9]:
            part = slice(start, start + 20)
            block = matrix[part] if axis == "rows" else matrix[:, part]
            writer.write(start, start + 20, block)
            committed[start] = block
        disk.cut(kept, seed)
    disk.cut(kept, seed)  # closing wrote the same bytes again
    with ResultWriter.resume(disk.path, FINGERPRINT, fsync=fsync) as writer:
        missing = {line for gap in writer.missing() for line in gap}
        if fsync == "block":
            assert not missing & {start + i for start in committed for i in range(20)}
        for gap in writer.missing():
            part = slice(gap.start, gap.stop)
            block = matrix[part] if axis == "rows" else matrix[:, part]
            writer.write(gap.start, gap.stop, block)
        writer.finish({})
    assert verify_result(disk.path).problems == ()
    with open_result(disk.path) as result:
        assert np.array_equal(result[:, :], matrix)


def test_impossible_and_left_over_ledger_entries_are_discarded(describe, entries, tmp_path):
    matrix = entries((12, 20), "float64")
    with ResultWriter.create(tmp_path / "r.h5", describe()) as writer:
        for start in range(0, 8, 2):
            writer.write(start, start + 2, matrix[start : start + 2])
    with h5py.File(writer.part, "r+", libver=("earliest", "v108")) as file:
        ledger = file["ledger"]
        assert isinstance(ledger, h5py.Dataset)
        entry = ledger[0]
        for slot, span in ((1, (-5, 3)), (2, (1, 7)), (9, (8, 10))):
            entry["start"], entry["stop"] = span
            ledger[slot] = entry
    with open_result(writer.path, allow_partial=True) as result:
        assert result.mask.tolist() == [True] * 2 + [False] * 4 + [True] * 2 + [False] * 4
    with ResultWriter.resume(writer.path, FINGERPRINT) as writer:
        assert writer.missing() == [range(2, 6), range(8, 12)]
        for start, stop in ((2, 4), (4, 6), (8, 12)):
            writer.write(start, stop, matrix[start:stop])
        writer.finish({})
    assert verify_result(writer.path).problems == ()


def test_an_unknown_policy(describe, tmp_path):
    with pytest.raises(ResultError, match="one of end, block"):
        ResultWriter.create(tmp_path / "r.h5", describe(), fsync="never")  # pyright: ignore[reportArgumentType]


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_too_small_is_refused_at_the_start(describe, small_disk):
    with pytest.raises(ResultError, match=r"takes \d+ bytes; \d+ are free"):
        ResultWriter.create(small_disk / "r.h5", describe((1000, 1000)))
    assert list(small_disk.iterdir()) == []


def filler(matrix: np.ndarray, axis: str) -> Callable[[ResultWriter], None]:
    """Return a function that writes the missing blocks of a matrix."""

    def write(writer: ResultWriter) -> None:
        for gap in writer.missing():
            for start in range(gap.start, gap.stop, 20):
                part = slice(start, min(start + 20, gap.stop))
                block = matrix[part] if axis == "rows" else matrix[:, part]
                writer.write(part.start, part.stop, block)

    return write


AXES = pytest.mark.parametrize(("axis", "tile"), [("rows", None), ("columns", (300, 20))])


@AXES
def test_a_disk_that_others_fill_has_the_space_of_the_result(
    describe, entries, small_disk, axis, tile
):
    matrix = entries((300, 400), "float64")
    write = filler(matrix, axis)
    description = describe(matrix.shape, axis=axis, tile=tile)
    with ResultWriter.create(small_disk / "r.h5", description) as writer:
        free = os.statvfs(small_disk)
        (small_disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize))
        write(writer)
        writer.finish({})
    assert verify_result(small_disk / "r.h5").problems == ()


@AXES
def test_a_full_disk_that_reserves_nothing_loses_nothing(
    describe, entries, small_disk, axis, tile, monkeypatch
):
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    matrix = entries((300, 400), "float64")
    path, ballast = small_disk / "r.h5", small_disk / "ballast"
    lines, write = matrix.shape[0 if axis == "rows" else 1], filler(matrix, axis)
    writer = ResultWriter.create(path, describe(matrix.shape, axis=axis, tile=tile))
    write_until_full(writer, write, ballast)
    with pytest.raises(ResultError, match=r"takes \d+ bytes; \d+ are free"):
        ResultWriter.resume(path, FINGERPRINT)
    with open_result(path, allow_partial=True) as result:
        assert 0 < result.mask.sum() < lines
        there = result[:, :][result.mask] if axis == "rows" else result[:, :][:, result.mask]
        kept = matrix[result.mask] if axis == "rows" else matrix[:, result.mask]
        assert np.array_equal(there, kept)
    ballast.unlink()
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        assert sum(map(len, writer.missing())) < lines
        write(writer)
        writer.finish({})
    assert verify_result(path).problems == ()


def write_until_full(writer, write, ballast: Path) -> None:
    free = os.statvfs(ballast.parent)
    ballast.write_bytes(b"x" * (free.f_bavail * free.f_frsize - 400_000))
    with pytest.raises(ResultError, match=r"About \d+ bytes more are needed, \d+ are free"):
        write(writer)
    # Closing repeats the write that failed.
    with contextlib.suppress(ResultError):
        writer.close()


@pytest.mark.parametrize("free", [50_000, 400_000, 800_000])
def test_a_disk_that_is_full_while_compressing_loses_nothing(describe, entries, small_disk, free):
    matrix = entries((300, 400), "float64")
    path, ballast = small_disk / "r.h5", small_disk / "ballast"
    description = describe(matrix.shape, compression="gzip", tile=(10, 400))
    with ResultWriter.create(path, description) as writer:
        writer.write(0, 300, matrix)
        state = os.statvfs(small_disk)
        ballast.write_bytes(bytes(state.f_bfree * state.f_frsize - free))
        with pytest.raises(ResultError, match=r"compressed copy of .* takes up to \d+ bytes"):
            writer.finish({})
    assert sorted(file.name for file in small_disk.iterdir()) == ["ballast", "r.h5.part"]
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        assert writer.missing() == []
        writer.finish({})
    assert verify_result(path).problems == ()
    with open_result(path) as result:
        assert np.array_equal(result[:, :], matrix)


@pytest.mark.parametrize("kind", ["rows", "columns", "gzip", "many inputs", "many points"])
@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1), (48, 40)])
def test_the_space_asked_for_is_that_of_the_file(describe, tmp_path, kind, shape):
    changes = {
        "axis": "columns" if kind == "columns" else "rows",
        "compression": "gzip" if kind == "gzip" else "none",
        "point": {"x": np.zeros(shape[1])},
        "vectors": {"v": np.zeros(shape[0])},
        "probes": Probes(np.ones(shape[1]), np.ones(shape[0]), None, None, 1e-9),
    }
    if kind == "many inputs":
        tensors = tuple(TensorSpec(f"weights of layer {n}", (1,), "float64") for n in range(500))
        changes |= {"columns": tensors}
        shape = (shape[0], 500)
        changes["probes"] = None
    if kind == "many points":
        changes |= {"points": 3, "probes": None}
    described = describe(shape, **changes)
    with ResultWriter.create(tmp_path / "r.h5", described) as writer:
        assert stored_bytes(described) == pytest.approx(writer.part.stat().st_size, rel=0.05)


def test_a_large_matrix_begins_with_a_page(describe, tmp_path):
    ResultWriter.create(tmp_path / "r.h5", describe((200, 200), axis="rows")).close()
    with open_file(tmp_path / "r.h5.part", "r") as file:
        matrix: Any = file["jacobian"]
        assert matrix.id.get_offset() % 4096 == 0


def test_a_directory_that_cannot_be_flushed_is_reported_once(describe, tmp_path, monkeypatch):
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        with ResultWriter.create(tmp_path / "r.h5", describe()) as writer:
            writer.write(0, 12, np.zeros((12, 20)))
            writer.finish({})
    assert [str(each.message).split(":")[0] for each in caught] == [
        f"The file system of {tmp_path} cannot flush a directory (fsync"
    ]


CACHESTAT = 451  # of Linux 6.5 and later, by the same number on every machine


def dirty_pages(path: Path) -> int | None:
    """Return the number of dirty pages of a file; None if the system does not report it."""
    whole, counts = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    with path.open("rb") as file:
        failed = ctypes.CDLL(None).syscall(CACHESTAT, file.fileno(), whole, counts, 0)
    return None if failed else counts[1]


def has_few_dirty_pages(path: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not (is_written := (dirty_pages(path) or 0) < 16) and time.monotonic() < end:
        time.sleep(0.01)
    return is_written


@pytest.fixture
def lazy_disk(tmp_path):
    """A directory on a file system whose writeback the kernel schedules."""
    plain = tmp_path / "plain"
    plain.write_bytes(bytes(2**22))
    if not dirty_pages(plain):
        pytest.skip("the system does not say what is on the disk, or keeps nothing from it")
    with plain.open("rb") as file:
        os.fsync(file.fileno())
    if dirty_pages(plain):
        pytest.skip("this is no disk")
    return tmp_path


def write_halves(writer: ResultWriter, matrix: np.ndarray) -> None:
    for start in range(0, 1024, 512):
        lines = slice(start, start + 512)
        writer.write(
            start, start + 512, matrix[lines] if writer.axis == "rows" else matrix[:, lines]
        )


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_writeback_of_a_block_starts_while_others_are_computed(describe, entries, lazy_disk, axis):
    matrix = entries((1024, 1024), "float64")
    path = lazy_disk / "r.h5"
    with ResultWriter.create(path, describe(matrix.shape, axis=axis)) as writer:
        write_halves(writer, matrix)
        # The ledger's writeback is left to the kernel.
        assert has_few_dirty_pages(part_path(path), seconds=10)
        writer.finish({})
    assert not dirty_pages(path)
    with open_result(path) as result:
        np.testing.assert_array_equal(result[:], matrix)


def test_writeback_of_rows_written_in_parts_is_left_to_the_kernel(
    describe, entries, tmp_path, monkeypatch
):
    brought: list[int] = []
    monkeypatch.setattr(
        outputs._writing.direct_writes,
        "start_writeback",
        lambda descriptor, offset, size: brought.append(size),
    )
    described = describe((1024, 1024), axis="columns", tile=(256, 1024))
    with ResultWriter.create(tmp_path / "r.h5", described) as writer:
        write_halves(writer, entries((1024, 1024), "float64"))
    assert not brought
