"""Cover with two checksums everything in a file beside the entries, which have their own.

The first digest covers what is final when the file is created: attributes, tables, arrays, texts,
probes, and the shapes and types of the matrix and the ledger. The second covers what arrives until
the file is finished: the committed entries of the ledger, the execution record, and the strategies,
because another one may have continued the job. Both are SHA-256
of names, types, shapes and values, whatever their places in the file, so that a copy by another
program of HDF5 keeps them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from outputs._errors import ResultError
from outputs._format.ledger import used_entries
from outputs._format.names import ARRAYS, DIGESTS, MINOR_VERSION, Names
from outputs._format.reading import read_text
from outputs._format.tables import dataset, read_attribute
from outputs._format.validation import MAX_ATTRIBUTE_BYTES, member, require_sound, scalar

# Dimension scales have no values; these attributes of theirs are references within the file.
_SCALES = (Names.ROW, Names.COLUMN, Names.POINT_NUMBER, *Names.TABLE_SCALES)
_REFERENCES = ("DIMENSION_LIST", "REFERENCE_LIST")
_STRATEGY = "strategy"
_HEX_DIGITS = 64
_BYTES_AT_ONCE = 64 * 2**20
_DEEPEST = 3

_CREATION, _FINISH = 0, 1
_SUBJECTS = {
    _CREATION: "the point, the tables or other records",
    _FINISH: "the ledger or the execution record",
}


def create_digests(file: h5py.File) -> None:
    """Add the digests to a file whose layout is otherwise complete: that of creation, and space."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
    dtype = h5py.string_dtype("utf-8", _HEX_DIGITS)
    stored = file.create_dataset(DIGESTS, (len(_SUBJECTS),), dtype, dcpl=properties)
    stored[_CREATION] = _of_creation(file)


def write_finish_digest(file: h5py.File) -> None:
    """Write the digest of the ledger and the execution record, after both."""
    if (stored := _stored(file)) is not None:
        stored[_FINISH] = _of_finish(file)


def clear_finish(file: h5py.File) -> None:
    """Remove what an earlier attempt to finish has written, before the ledger changes."""
    stored = _stored(file)
    if stored is not None and _digest(stored, _FINISH):
        stored[_FINISH] = b""
    # A record without its digest would be damage.
    if read_text(file, Names.EXECUTION):
        record = dataset(file, Names.EXECUTION)
        record[()] = np.array(b"", dtype=record.dtype)


def damaged_records(file: h5py.File) -> list[str]:
    """Return what does not have its checksum, as subjects of a sentence; empty for older files.

    Raises:
        ResultError: If the file cannot be read, or should have digests and has none.
    """
    stored = _stored(file)
    if stored is None:
        return []
    expected = {_CREATION: _of_creation(file)}
    is_finished = bool(read_text(file, Names.EXECUTION) or _digest(stored, _FINISH))
    if is_finished:
        expected[_FINISH] = _of_finish(file)
    return [_SUBJECTS[n] for n, digest in expected.items() if _digest(stored, n) != digest]


def require_sound_creation(file: h5py.File) -> None:
    """Check the digest of what is final at creation, of a file that need not be finished.

    Raises:
        ResultError: If it does not fit, with the remedy.
    """
    stored = _stored(file)
    if stored is not None and _digest(stored, _CREATION) != _of_creation(file):
        raise ResultError(
            f"{file.filename} is damaged: {_SUBJECTS[_CREATION]} do not have their checksum. "
            "Remove the file; the same command then computes it anew."
        )


def _stored(file: h5py.File) -> h5py.Dataset | None:
    """Return the digests of a file; None for a file of a version without them."""
    minor = scalar(file, MINOR_VERSION) if MINOR_VERSION in file.attrs else 0
    if not minor and DIGESTS not in file:
        return None
    stored = dataset(file, DIGESTS)
    if stored.shape != (len(_SUBJECTS),) or stored.dtype != np.dtype(f"S{_HEX_DIGITS}"):
        raise ResultError(f"{file.filename} is damaged: its digests are none.")
    return stored


def _digest(stored: h5py.Dataset, number: int) -> bytes:
    return bytes(stored[number]).rstrip(b"\0")


def _of_finish(file: h5py.File) -> bytes:
    digest = hashlib.sha256(read_text(file, Names.EXECUTION).encode())
    digest.update(str(read_attribute(file, _STRATEGY)).encode())
    if Names.LEDGER in file:
        digest.update(used_entries(dataset(file, Names.LEDGER)).tobytes())
    return digest.hexdigest().encode()


def _of_creation(file: h5py.File) -> bytes:
    operation = read_attribute(file, "operation")
    changing = {operation, *(f"{operation}/{name}" for name in ARRAYS)}
    headers = {*changing, *_SCALES, Names.LEDGER, Names.EXECUTION, DIGESTS}
    digest = hashlib.sha256()
    for path, found in _objects(file, "", _DEEPEST):
        _add_attributes(digest, path, found)
        if isinstance(found, h5py.Dataset):
            _add_header(digest, path, found.dtype, found.shape)
            if path not in headers:
                require_sound(found)
                for piece in _pieces(found):
                    digest.update(piece.tobytes())
    return digest.hexdigest().encode()


def _objects(group: h5py.Group, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield the group and all objects below it, in order of their names."""
    yield prefix, group
    for name in sorted(map(str, group)):
        found, path = member(group, name), f"{prefix}/{name}" if prefix else name
        if isinstance(found, h5py.Group):
            if not depth:
                raise ResultError(f"{group.file.filename} is damaged: {path} is nested too deeply.")
            yield from _objects(found, path, depth - 1)
        else:
            yield path, found


def _add_attributes(digest: Any, path: str, target: Any) -> None:
    for name in sorted(map(str, target.attrs)):
        if name in _REFERENCES or (not path and name == _STRATEGY):
            continue
        attribute = target.attrs.get_id(name)
        if attribute.dtype.hasobject or attribute.get_storage_size() > MAX_ATTRIBUTE_BYTES:
            raise ResultError(
                f"{target.file.filename} is damaged: the attribute {name!r} is no plain value."
            )
        _add_header(digest, f"{path}@{name}", attribute.dtype, attribute.shape)
        if attribute.get_space().get_simple_extent_type() != h5py.h5s.NULL:
            values = np.empty(attribute.shape, attribute.dtype)
            attribute.read(values)
            digest.update(values.tobytes())


def _add_header(digest: Any, path: str, dtype: np.dtype, shape: tuple[int, ...] | None) -> None:
    digest.update(json.dumps([path, _type(dtype), shape]).encode() + b"\n")


def _type(dtype: np.dtype) -> Any:
    if dtype.names is None:
        return dtype.str
    return [[name, _type(dtype[name])] for name in dtype.names]


def _pieces(source: h5py.Dataset) -> Iterator[np.ndarray]:
    """Yield the values along the leading dimension, in pieces of limited size where possible."""
    if source.nbytes <= _BYTES_AT_ONCE:
        yield np.asarray(source[()])
        return
    step = max(1, _BYTES_AT_ONCE * source.shape[0] // source.nbytes)
    for start in range(0, source.shape[0], step):
        yield source[start : start + step]


def content_identity(file: h5py.File) -> str:
    """Return a SHA-256 of all that a finished file holds, its entries by their checksums."""
    return hashlib.sha256(_of_creation(file) + _of_finish(file)).hexdigest()
