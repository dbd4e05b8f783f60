"""Every byte beside the entries has a checksum, and every command that relies on it compares it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse

from outputs import (
    FingerprintMismatchError,
    Probes,
    ResultError,
    ResultWriter,
    Shard,
    open_result,
    open_sparse_result,
    verify_result,
    write_sparse,
)
from outputs._sharding.merging import merge_shards
from outputs.export import main as export

DATA = Path(__file__).parents[1] / "data"
FINGERPRINT = "0123456789abcdef"
LIBVER = ("earliest", "v108")
# References of HDF5 between an axis and its scale: no reader here follows them.
REFERENCES = ("DIMENSION_LIST", "REFERENCE_LIST")
ENTRIES = ("data", "indices", "indptr")


@pytest.fixture
def write(describe, entries, tmp_path) -> Callable[[str], Path]:
    matrix = entries((12, 20), "float64")
    v, u = np.arange(20.0), np.arange(12.0)
    probes = Probes(v, matrix @ v, u, u @ matrix, 1e-10)

    def dense(path: Path, start: int = 0, stop: int = 12, **changes: Any) -> Path:
        with ResultWriter.create(path, describe(probes=probes, **changes)) as writer:
            writer.write(start, stop, matrix[start:stop])
            writer.finish({"seconds": 1})
        return path

    def shards() -> list[Path]:
        return [
            dense(tmp_path / f"part{i}.h5", 6 * i, 6 * i + 6, shard=Shard(i, 2, 6 * i, 6 * i + 6))
            for i in range(2)
        ]

    def put(kind: str) -> Path:
        path = tmp_path / f"{kind}.h5"
        if kind in ("merged", "virtual"):
            merge_shards(shards(), path, virtual=kind == "virtual")
        elif kind == "shard":
            return shards()[1]
        elif kind == "sparse":
            sparse = scipy.sparse.csr_array(matrix > 1, dtype=np.float64)
            write_sparse(
                path,
                describe(probes=Probes(v, sparse @ v, u, u @ sparse, 1e-10)),
                sparse.indptr.astype(np.int64),
                sparse.indices,
                sparse.data.__getitem__,
                kind="column",
                colours={"column_colours": np.arange(20, dtype=np.int32)},
                execution={"seconds": 1},
            )
        else:
            dense(path, compression="gzip" if kind == "packed" else "none")
        return path

    return put


def objects(file: h5py.File) -> Iterator[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [("/", file)]
    file.visititems(lambda name, item: found.append((name, item)))
    yield from found


def places(path: Path) -> list[tuple[str, str | None]]:
    """Return each attribute and each array beside the matrix, as (object, attribute or None)."""
    found: list[tuple[str, str | None]] = []
    with h5py.File(path) as file:
        operation = file.attrs["operation"]
        operation = operation.decode() if isinstance(operation, bytes) else str(operation)
        for name, item in objects(file):
            found += [(name, key) for key in item.attrs if key not in REFERENCES]
            is_matrix = name == operation or name.split("/")[-1] in ENTRIES
            if isinstance(item, h5py.Dataset) and not is_matrix and item.id.get_storage_size():
                found.append((name, None))
    return found


def flip(path: Path, name: str, key: str | None) -> None:
    """Flip one bit of an attribute's or dataset's value, in its middle."""
    with h5py.File(path, "r+", libver=None if path.stem == "virtual" else LIBVER) as file:
        item: Any = file[name]
        if key is None:
            values = np.empty(item.shape, item.dtype)
            item.id.read(h5py.h5s.ALL, h5py.h5s.ALL, values, item.id.get_type())
        else:
            attribute = item.attrs.get_id(key)
            values = np.empty(attribute.shape, attribute.dtype)
            attribute.read(values)
        flat = np.atleast_1d(values).reshape(-1)
        raw = flat.view(np.uint8)
        # The middle of what is in use: texts and the ledger have empty space behind them.
        used = np.flatnonzero(raw)
        raw[used[len(used) // 2] if used.size else 0] ^= 1
        values = flat.reshape(values.shape)
        if key is None:
            item.id.write(h5py.h5s.ALL, h5py.h5s.ALL, values, item.id.get_type())
        else:
            attribute.write(np.ascontiguousarray(values))


KINDS = ("plain", "packed", "virtual", "shard", "sparse")


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_anywhere_beside_the_matrix_is_found(write, kind):
    path = write(kind)
    assert verify_result(path).problems == ()
    whole = path.read_bytes()
    all_places = places(path)
    assert {("point/x", None), ("provenance", "seed"), ("execution", None)} <= set(all_places)
    for name, key in all_places:
        path.write_bytes(whole)
        flip(path, name, key)
        problems = verify_result(path).problems
        assert problems, f"{name} {key}"
    path.write_bytes(whole)
    assert verify_result(path).problems == ()


@pytest.mark.parametrize("kind", ["plain", "sparse"])
def test_what_is_removed_or_added_is_found(write, kind):
    path = write(kind)
    whole = path.read_bytes()
    changes: dict[str, Callable[[Any], Any]] = {
        "digests": lambda f: f.__delitem__("digests"),
        "point": lambda f: f.__delitem__("point/x"),
        "value": lambda f: f["value"].__setitem__("z", np.ones(3)),
        "attribute": lambda f: f.attrs.__setitem__("note", 1),
        "renamed": lambda f: f.move("point/x", "point/y"),
        "shape": lambda f: (f.move("point/x", "p"), f.__setitem__("point/x", f["p"][()][None])),
        "finish digest": lambda f: f["digests"].__setitem__(1, b""),
    }
    for name, change in changes.items():
        path.write_bytes(whole)
        with h5py.File(path, "r+", libver=LIBVER) as file:
            change(file)
        assert not verify_result(path).ok, name


def test_a_damaged_part_is_not_resumed_and_not_finished(describe, tmp_path):
    path = tmp_path / "r.h5"
    with ResultWriter.create(path, describe()) as writer:
        writer.write(0, 12, np.ones((12, 20)))
        part = writer.part
        with h5py.File(part, "r+", libver=LIBVER, locking=False) as file:
            whole = part.read_bytes()
            file["point/x"][1] += 1e-9  # pyright: ignore[reportIndexIssue, reportOperatorIssue]
        with pytest.raises(ResultError, match="Remove the file; the same command then"):
            writer.finish({})
    assert not path.exists()
    with pytest.raises(ResultError, match="is damaged: the point"):
        ResultWriter.resume(path, FINGERPRINT)
    part.write_bytes(whole)
    with pytest.raises(FingerprintMismatchError):
        ResultWriter.resume(path, "another")
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        writer.finish({})
    assert verify_result(path).ok


def test_a_finish_that_was_interrupted_is_repeated(describe, tmp_path, monkeypatch):
    """The process ends after the digest of the ledger, before the file has its name."""
    path = tmp_path / "r.h5"
    with ResultWriter.create(path, describe()) as writer:
        writer.write(0, 12, np.ones((12, 20)))
        with monkeypatch.context() as patch:
            patch.setattr("outputs._writing.publishing.publish", lambda *paths: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                writer.finish({"seconds": 1})
        part = writer.part
    assert verify_result(part).ok
    with h5py.File(part, "r+", libver=LIBVER) as file:
        file["jacobian"][3, 3] = 0.0  # pyright: ignore[reportIndexIssue]
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        assert writer.missing() == [range(12)]
        writer.write(0, 12, np.ones((12, 20)))
        writer.finish({"seconds": 2})
    assert verify_result(path).ok


def test_a_damaged_shard_is_not_merged_and_a_damaged_result_not_exported(write, tmp_path, capsys):
    write("shard")
    flip(tmp_path / "part1.h5", "point/x", None)
    with pytest.raises(ResultError, match=r"part1\.h5 is damaged: the point"):
        merge_shards([tmp_path / "part0.h5", tmp_path / "part1.h5"], tmp_path / "m.h5")
    plain = write("plain")
    flip(plain, "configuration", None)
    assert export([str(plain), "--to", "npz"]) == 1
    assert "is damaged: the point" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["plain", "packed", "shard", "sparse"])
def test_the_physical_layout_does_not_matter(write, kind, tmp_path):
    path = write(kind)
    copy = tmp_path / "copy.h5"
    with h5py.File(path) as source, h5py.File(copy, "w", libver="latest") as target:
        target.attrs.update(source.attrs)
        for name in reversed(list(source)):
            source.copy(name, target, expand_refs=False)
    opened: Any = open_sparse_result if kind == "sparse" else open_result
    options = {} if kind == "sparse" else {"allow_partial": True}
    with opened(path, **options) as result:
        assert result.damaged_records() == []
    if program := shutil.which("h5repack"):
        repacked = tmp_path / "repacked.h5"
        subprocess.run([program, "-f", "GZIP=1", path, repacked], check=True)
        with opened(repacked, **options) as result:
            assert result.damaged_records() == []


@pytest.mark.parametrize("path", sorted(DATA.glob("*.h5")), ids=lambda path: path.stem)
def test_files_of_every_version_are_read(path):
    found = verify_result(path)
    assert found.problems == ()
    version, _, minor = path.stem.removeprefix("format-").partition(".")
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == int(version)
        assert file.attrs.get("format_minor_version", 0) == int(minor or 0)
        assert ("digests" in file) is bool(minor)
    opened: Any = open_sparse_result if version == "4" else open_result
    options = {} if version == "4" else {"allow_partial": True}
    with opened(path, **options) as result:
        points = result.point(1).point if version in ("7", "11") else result.points
        assert points["w/0"].shape[-2:] == (2, 3)
        assert result.damaged_records() == []
