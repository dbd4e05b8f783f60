"""Refuse files with links or data elsewhere, and shapes larger than the file can hold."""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np

from outputs._errors import ResultError
from outputs._storage.free_memory import free_memory

# Deflate expands one byte to at most 1032 bytes (https://zlib.net/zlib_tech.html).
_MAX_INFLATION = 1032
_MAX_EXTENT = 2**48
_MAX_TILE_BYTES = 2**31
MAX_ATTRIBUTE_BYTES = 2**20


def member(group: h5py.Group, name: str) -> Any:
    """Return an object that is in the group itself.

    Raises:
        ResultError: If it is missing, or a soft, external or user-defined link.
    """
    link = group.get(name, getclass=True, getlink=True)
    if link is None:
        raise ResultError(f"{group.file.filename} is damaged: {name!r} is missing.")
    if link is not h5py.HardLink:
        raise ResultError(f"{group.file.filename} is refused: {name!r} is a link to another place.")
    return group[name]


def require_sound(dataset: h5py.Dataset) -> None:
    """Check that a dataset's data are in its own file and no larger than that file.

    The file's declarations are not trusted: reading 2**60 rows that were never written would take
    all memory, and external and virtual datasets read other files.

    Raises:
        ResultError: If the data are elsewhere, or cannot be as large as declared.
    """
    if fault := _fault(dataset):
        raise ResultError(f"{dataset.file.filename} is {fault.format(dataset.name)}")


def _fault(dataset: h5py.Dataset) -> str:
    """Return what is wrong with a dataset, with {} in place of its name; empty if nothing is."""
    properties, shape, dtype = dataset.id.get_create_plist(), dataset.shape, dataset.dtype
    layout = properties.get_layout()
    if properties.get_external_count() or layout == h5py.h5d.VIRTUAL:
        return "refused: the data of {} are in another file."
    if shape is None or max((0, *shape)) > _MAX_EXTENT:
        return "damaged: {} has an impossible shape."
    if dtype.hasobject:
        return "damaged: {} holds neither numbers nor text."
    limit = dataset.file.id.get_filesize()
    needed = dtype.itemsize * math.prod(shape)
    if layout == h5py.h5d.CHUNKED:
        limit *= _MAX_INFLATION if properties.get_nfilters() else 1
        tile = math.prod(dataset.chunks or ()) * dtype.itemsize
        if tile > min(_MAX_TILE_BYTES, limit) and needed:
            return "damaged: {} has impossible tiles."
    elif layout == h5py.h5d.CONTIGUOUS and needed:
        offset = dataset.id.get_offset()
        needed += limit + 1 if offset is None else offset
    return "damaged: {} is larger than the file." if needed > limit else ""


def whole(dataset: h5py.Dataset) -> np.ndarray:
    """Read a sound dataset as an array, if it fits in memory.

    Raises:
        ResultError: If it declares more than is free. Compressed data may be 1032 times the file.
    """
    free = free_memory()
    if free is not None and dataset.nbytes > free:
        raise ResultError(
            f"{dataset.file.filename}: {dataset.name} takes {dataset.nbytes} bytes, and {free} of "
            "memory are free."
        )
    return np.asarray(dataset[()])


def scalar(target: h5py.Group, name: str) -> Any:
    """Read an attribute that is a single text or number, as a plain Python value.

    Raises:
        ResultError: If it is missing, or is not a single text or number.
    """
    attributes = target.attrs
    if name not in attributes:
        raise ResultError(f"{target.file.filename} is damaged: the attribute {name!r} is missing.")
    attribute = attributes.get_id(name)
    # Texts of variable length are not read at all, because HDF5 hangs on a damaged heap.
    is_plain = attribute.shape == () and not attribute.dtype.hasobject
    if is_plain and attribute.get_storage_size() <= MAX_ATTRIBUTE_BYTES:
        value = attributes[name]
        value = value.item() if isinstance(value, np.generic) else value
        value = value.decode() if isinstance(value, bytes) else value
        if isinstance(value, str | int | float | bool):
            return value
    raise ResultError(
        f"{target.file.filename} is damaged: the attribute {name!r} is no single value."
    )


def integers(target: h5py.Group, name: str, count: int) -> Any:
    """Read an attribute that is a list of so many whole numbers, none of them negative, as a tuple.

    Raises:
        ResultError: If it is missing, or is no such list.
    """
    path = target.file.filename
    if name not in target.attrs:
        raise ResultError(f"{path} is damaged: the attribute {name!r} is missing.")
    attribute = target.attrs.get_id(name)
    if attribute.shape != (count,) or attribute.dtype.kind not in "iu":
        raise ResultError(f"{path} is damaged: the attribute {name!r} is no {count} numbers.")
    values = tuple(np.asarray(target.attrs[name]).tolist())
    if min(values) < 0:
        raise ResultError(f"{path} is damaged: the attribute {name!r} is negative.")
    return values


def require_choice(what: str, given: str, choices: tuple[str, ...]) -> None:
    """Check that a value is one of several.

    Args:
        what: The name of the value, for the message.
        given: The value.
        choices: The valid values.

    Raises:
        ResultError: If the value is not among ``choices``.
    """
    if given not in choices:
        raise ResultError(f"The {what} is one of {', '.join(choices)}, not {given!r}.")
