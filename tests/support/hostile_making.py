"""Results changed in every object of the format, in ways that HDF5 allows, by a seed."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

LIBVER = ("earliest", "v110")
EVIL = "\x1b[2J\x1b]0;x\x07$\\frac{a$\r\u202e"
EXTREMES = (0, 1, -1, 2**31 - 1, 2**31, -(2**31), 2**62, 2**63 - 1, -(2**63), 255, 20, 21)


def hostile_status(chance: random.Random) -> bytes:
    """Return the content of a status file of which a few facts, or some bytes, are changed."""
    facts: dict[str, Any] = {
        "state": chance.choice(["planned", "running", "finished", "failed", "interrupted"]),
        "host": "elsewhere", "pid": 7, "operation": "jacobian", "function": "f", "axis": "rows",
        "lines": 200, "lines_done": 50, "seconds": 1.5, "lines_per_second": 3.0, "seconds_left": 9,
        "updated": "2026-01-01T00:00:00+00:00", "message": "", "strategy": "auto", "device": "cpu",
        "shape": [12, 20], "excluded": {}, "verification": "verified",
    }  # fmt: skip
    for name in chance.sample(list(facts), chance.randint(1, 4)):
        facts[name] = _any_value(chance)
    content = bytearray(json.dumps(facts).encode())
    for _ in range(chance.choice([0, 0, 1, 3])):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content[: chance.choice([len(content)] * 4 + [chance.randrange(len(content))])])


def _any_value(chance: random.Random, depth: int = 3) -> Any:
    """Return anything that JSON, as Python reads it, can hold."""
    plain = [None, True, "", EVIL, "\ud800", "x" * 5000, 0.5, 1e300, 10**400, float("nan")]
    plain += [float("inf"), -float("inf"), *EXTREMES]
    if not depth or chance.random() < 0.7:
        return chance.choice(plain)
    inner = [_any_value(chance, depth - 1) for _ in range(chance.randint(0, 3))]
    return inner if chance.random() < 0.5 else {f"{EVIL}{n}": each for n, each in enumerate(inner)}


def write_bases(folder: Path) -> list[Path]:
    """Write a sound file of each kind, and return them."""
    import scipy.sparse

    from outputs import (
        Probes,
        ResultDescription,
        ResultWriter,
        Selection,
        Shard,
        TensorSpec,
        write_sparse,
    )
    from outputs._sharding.merging import merge_shards

    matrix = np.random.default_rng(0).standard_normal((12, 20))
    v, u = np.arange(20.0), np.arange(12.0)

    def description(product: Any = matrix, **changes: Any) -> ResultDescription:
        facts: dict[str, Any] = {
            "operation": "jacobian",
            "strategy": "reverse-loop",
            "function": "module:function",
            "fingerprint": "0123",
            "axis": "rows",
            "dtype": "float64",
            "vectors": {},
            "rows": (TensorSpec("y", (3, 4), "float64"),),
            "rows_are_tuple": False,
            "columns": (TensorSpec("w/0", (4, 4), "float64"), TensorSpec("b", (4,), "float32")),
            "columns_are_tuple": True,
            "value": {"y": np.ones((3, 4))},
            "point": {"w/0": np.ones((4, 4)), "b": np.zeros(4, "float32")},
            "configuration": "op: jacobian\n",
            "provenance": {"seed": 7, "host": "h"},
            "probes": Probes(v, product @ v, u, u @ product, 1e-10),
        }
        return ResultDescription(**(facts | changes))

    def dense(
        name: str, start: int = 0, stop: int = 12, finish: bool = True, **changes: Any
    ) -> Path:
        path = folder / f"{name}.h5"
        with ResultWriter.create(path, description(**changes)) as writer:
            lines = matrix[start:stop]
            if changes.get("axis") == "columns":
                start, stop, lines = 0, 20, matrix
            if "points" in changes:
                stop, lines = 24, np.vstack([matrix, matrix])
            if "is_ragged" in changes:
                lines[12:, 16:] = 0
            writer.write(start, stop, lines)
            if finish:
                writer.finish({"seconds": 1, "verification": {"kind": "probe"}})
        if not finish:
            shutil.copy(path.with_name(f"{name}.h5.part"), path)
        return path

    shards = [
        dense(f"shard{i}", 6 * i, 6 * i + 6, shard=Shard(i, 2, 6 * i, 6 * i + 6)) for i in (0, 1)
    ]
    merge_shards(shards, folder / "virtual.h5", virtual=True)
    sparse = scipy.sparse.csr_array(np.where(matrix > 1, matrix, 0))
    write_sparse(
        folder / "sparse.h5",
        description(sparse),
        sparse.indptr.astype(np.int64),
        sparse.indices,
        sparse.data.__getitem__,
        kind="column",
        colours={"column_colours": np.arange(20, dtype=np.int32)},
        execution={"seconds": 1},
    )
    wide = (TensorSpec("w/0", (4, 6), "float64"), TensorSpec("b", (4,), "float32"))
    columns = np.r_[0:16, 24:28]
    selection = Selection(np.arange(12), columns, (TensorSpec("y", (3, 4), "float64"),), wide)
    rows = (TensorSpec("y", (3, 4), "float64"),) * 2
    sizes = (TensorSpec("w/0", (4, 5), "float64"), TensorSpec("w/0", (4, 4), "float64"))
    at_points = {"point": {"w/0": np.ones(36)}, "value": {"y": np.ones(24)}, "probes": None}
    wholes = (TensorSpec("w/0", (5, 5), "float64"), TensorSpec("w/0", (4, 5), "float64"))
    of_points = Selection(np.arange(24), np.r_[0:20, 25:41], rows, wholes)
    return [
        dense("plain"),
        dense("tiles", axis="columns", tile=(5, 4), compression="gzip"),
        dense("points", points=2, probes=None),
        dense("ragged", points=2, is_ragged=True, rows=rows, columns=sizes, **at_points),
        dense("part", stop=7, finish=False),
        dense("selected", selection=selection),
        dense(
            "ragged-selected",
            points=2,
            is_ragged=True,
            rows=rows,
            columns=sizes,
            selection=of_points,
            **{**at_points, "point": {"w/0": np.ones(45)}},
        ),
        shards[0],
        folder / "virtual.h5",
        folder / "sparse.h5",
        folder / "sparse.h5",
    ]


def mutate(path: Path, chance: random.Random) -> list[str]:
    """Change a file in one to three places, and return what was changed."""
    done = []
    with h5py.File(path, "r+", libver=LIBVER) as file:
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            names: list[str] = []
            file.visit(names.append)
            name = chance.choice(["/", *names])
            kinds: list[Any] = (
                [_attribute] if name == "/" else [_attribute, _replace, _link, _values]
            )
            if name.startswith("jacobian/"):
                kinds += [_values] * 4
            change = chance.choice(kinds)
            # HDF5 refuses some combinations; these are no files that anyone could write.
            with contextlib.suppress(Exception):
                done.append(f"{change.__name__.strip('_')} {name}: {change(file, name, chance)}")
        if chance.random() < 0.6:
            with contextlib.suppress(Exception):
                _refit(file)
                done.append("checksums refitted")
    return done


def _refit(file: h5py.File) -> None:
    """Make checksums and digests fit what was changed, as someone with intent would."""
    from outputs._format import digests

    arrays: Any = file.get("jacobian")
    if isinstance(arrays, h5py.Group):
        table: Any = file["checksums"]
        rows = table[()]
        for row in rows:
            array: Any = arrays[("data", "indices", "indptr")[row["array"]]]
            part = array[row["start"] : row["stop"]]
            row["crc32"] = zlib.crc32(np.ascontiguousarray(part).tobytes())
        table[...] = rows
    stored: Any = file["digests"]
    stored[0] = digests._of_creation(file)
    if stored[1]:
        stored[1] = digests._of_finish(file)


def _odd_value(chance: random.Random) -> Any:
    number = chance.choice(EXTREMES)
    return chance.choice(
        [
            *(
                number,
                float("nan"),
                float("inf"),
                -1.5,
                True,
                "",
                EVIL,
                "rows",
                np.bytes_(b"\xff\xfe"),
            ),
            *(np.bytes_(EVIL.encode()), [1, 2, 3], np.zeros((2, 2)), [number, number]),
            *(
                h5py.Empty("f8"),
                np.array(["a", "b"], dtype=object),
                np.longdouble(1),
                np.complex64(1),
            ),
            *(
                np.void(b"\x00\x01\x02"),
                np.bytes_(b"[" * 300),
                np.zeros(3, [("a", "i4"), ("b", "S3")]),
            ),
        ]
    )


def _attribute(file: h5py.File, name: str, chance: random.Random) -> str:
    target: Any = file[name]
    keys = list(target.attrs)
    key = chance.choice([*keys, "format_minor_version", EVIL[:8]])
    if key in target.attrs and chance.random() < 0.3:
        del target.attrs[key]
        return f"without {key}"
    value = _odd_value(chance)
    target.attrs[key] = value
    return f"{key} = {value!r}"


def _odd_dataset(file: h5py.File, name: str, chance: random.Random) -> str:
    old: Any = file[name] if isinstance(file[name], h5py.Dataset) else np.zeros(3)
    shape, dtype = old.shape, old.dtype
    del file[name]
    kind = chance.randrange(12)
    if kind == 0:
        huge = tuple(chance.choice((2**20, 2**31, 2**40, 2**50)) for _ in shape or (1,))
        file.create_dataset(name, huge, dtype, chunks=tuple(8 for _ in huge))
    elif kind == 1:
        file.create_dataset(name, (2**14, 2**14), "f8", chunks=(2**14, 2**13), compression="gzip")
    elif kind == 2:
        file.create_dataset(name, (2**40,), "u1")
    elif kind == 3:
        file[name] = h5py.Empty(dtype)
    elif kind == 4:
        other = chance.choice(
            ["f2", "f4", ">f8", "c16", "i1", "u8", "?", "S9", np.longdouble, "V5"]
        )
        file.create_dataset(name, shape, other, data=np.zeros(shape, other))
    elif kind == 5:
        file[name] = np.array(["x", EVIL.replace("\0", "")], dtype=object)
    elif kind == 6:
        file.create_dataset(name, shape, dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
    elif kind == 7:
        layout = h5py.VirtualLayout(shape or (1,), "f8")
        layout[...] = h5py.VirtualSource(
            chance.choice(["no.h5", "plain.h5", "."]), name, shape or (1,)
        )
        file.create_virtual_dataset(name, layout, fillvalue=0)
    elif kind == 8:
        extents = tuple(chance.choice((0, 1, n, n + 1, max(0, n - 1))) for n in shape)
        file.create_dataset(name, extents, dtype, data=np.zeros(extents, dtype))
    elif kind == 9:
        dims = chance.choice([(), (3,), (2, 2), (1, 2, 3), (1,) * 12])
        file[name] = np.ones(dims)
    elif kind == 10:
        made = file.create_dataset(name, (64, 64), "f8", chunks=(64, 64), compression="gzip")
        made.id.write_direct_chunk((0, 0), chance.randbytes(100))
    else:
        made = file.create_dataset(
            name, (2**16, 2**13), "f8", chunks=(2**16, 2**12), compression="gzip"
        )
        packer = zlib.compressobj()
        data = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
        made.id.write_direct_chunk((0, 0), data)
    return f"dataset of kind {kind}"


def _replace(file: h5py.File, name: str, chance: random.Random) -> str:
    kind = chance.randrange(8)
    if kind == 0:
        del file[name]
        return "removed"
    if kind == 1:
        file.move(name, f"{name}{chance.choice(['..', '%', EVIL[:5], '%zz'])}")
        return "renamed"
    if kind == 2:
        del file[name]
        file.create_group(name)
        return "a group"
    if kind == 3:
        del file[name]
        file[name] = np.dtype("f8")
        return "a named type"
    return _odd_dataset(file, name, chance)


def _link(file: h5py.File, name: str, chance: random.Random) -> str:
    target = chance.choice(["/elsewhere", "/" + name, "/", "/point", "/missing", "/rows"])
    file.move(name, "elsewhere")
    kind = chance.randrange(3)
    if kind == 0:
        file[name] = h5py.SoftLink(target)
    elif kind == 1:
        file[name] = h5py.ExternalLink(
            chance.choice(["/etc/passwd", "no.h5", file.filename]), target
        )
    else:
        file[name] = file["/"] if target == "/missing" else file.get(target, file["/"])
    return f"link of kind {kind} to {target}"


def _values(file: h5py.File, name: str, chance: random.Random) -> str:
    found: Any = file[name]
    values = np.empty(found.shape, found.dtype)
    found.id.read(h5py.h5s.ALL, h5py.h5s.ALL, values, found.id.get_type())
    flat = values.reshape(-1)
    at = chance.randrange(len(flat))
    if found.dtype.names or found.dtype.kind in "SV":
        raw = flat.view(np.uint8)
        used = np.flatnonzero(raw)
        at = int(chance.choice(used)) if used.size else 0
        value: Any = chance.choice((0, 1, 255, 27, 92))
        raw[at] = value
    else:
        value = chance.choice(EXTREMES)
        with np.errstate(all="ignore"):
            flat[at] = np.array(value).astype(found.dtype)
    found.id.write(h5py.h5s.ALL, h5py.h5s.ALL, flat.reshape(values.shape), found.id.get_type())
    return f"{at} = {value}"
