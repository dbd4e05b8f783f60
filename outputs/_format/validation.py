"""What a file may not be: links elsewhere, data elsewhere, shapes that it cannot hold."""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np

from outputs._errors import ResultError

# Deflate makes at most 1032 bytes of one (https://zlib.net/zlib_tech.html).
_MAX_INFLATION = 1032
_MAX_EXTENT = 2**48
_MAX_TILE_BYTES = 2**31
_MAX_ATTRIBUTE_BYTES = 2**20


def member(group: h5py.Group, name: str) -> Any:
    """An object that stands in the group itself.

    Raises:
        ResultError: If it is missing, or a soft, external or user-defined link.
    """
    path = group.file.filename
    link = group.get(name, getlink=True)
    if link is None:
        raise ResultError(f"{path} is damaged: {name!r} is missing.")
    if not isinstance(link, h5py.HardLink):
        raise ResultError(f"{path} is refused: {name!r} is a link to another place.")
    return group[name]


def require_sound(dataset: h5py.Dataset) -> None:
    """Checks that a dataset's data stand in this file and are no larger than it.

    What a file declares is not believed: reading 2**60 rows that were never written would take
    all memory, and external and virtual datasets read other files.

    Raises:
        ResultError: If not.
    """
    path, name = dataset.file.filename, dataset.name
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    if properties.get_external_count() or layout == h5py.h5d.VIRTUAL:
        raise ResultError(f"{path} is refused: the data of {name} stand in another file.")
    if dataset.shape is None or max((0, *dataset.shape)) > _MAX_EXTENT:
        raise ResultError(f"{path} is damaged: {name} has an impossible shape.")
    if dataset.dtype.hasobject:
        raise ResultError(f"{path} is damaged: {name} holds what is neither numbers nor text.")
    limit = dataset.file.id.get_filesize()
    needed = dataset.dtype.itemsize
    for extent in dataset.shape:
        needed *= extent
    if layout == h5py.h5d.CHUNKED:
        limit *= _MAX_INFLATION if properties.get_nfilters() else 1
        tile = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
        if tile > min(_MAX_TILE_BYTES, limit) and needed:
            raise ResultError(f"{path} is damaged: {name} has impossible tiles.")
    elif layout == h5py.h5d.CONTIGUOUS and needed:
        offset = dataset.id.get_offset()
        needed += limit + 1 if offset is None else offset
    if needed > limit:
        raise ResultError(f"{path} is damaged: {name} is larger than the file.")


def scalar(target: h5py.Group, name: str) -> Any:
    """One text or number among the attributes, as a plain Python value.

    Raises:
        ResultError: If it is missing, or neither.
    """
    path = target.file.filename
    if name not in target.attrs:
        raise ResultError(f"{path} is damaged: the attribute {name!r} is missing.")
    attribute = target.attrs.get_id(name)
    # Texts of variable length are not even read: HDF5 hangs on a damaged heap.
    is_plain = attribute.shape == () and not attribute.dtype.hasobject
    if not is_plain or attribute.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
        raise ResultError(f"{path} is damaged: the attribute {name!r} is no single value.")
    value = target.attrs[name]
    value = value.item() if isinstance(value, np.generic) else value
    value = value.decode() if isinstance(value, bytes) else value
    if not isinstance(value, str | int | float | bool):
        raise ResultError(f"{path} is damaged: the attribute {name!r} is no single value.")
    return value


def require_choice(what: str, given: str, choices: tuple[str, ...]) -> None:
    if given not in choices:
        raise ResultError(f"The {what} is one of {', '.join(choices)}, not {given!r}.")
