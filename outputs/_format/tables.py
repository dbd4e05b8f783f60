"""Read single objects of a file, validated: attributes, datasets, groups and tables of tensors."""

from __future__ import annotations

import json

import h5py

from outputs._errors import ResultError
from outputs._format.axes import TensorSpec
from outputs._format.names import TABLE_FIELDS
from outputs._format.validation import member, require_sound, scalar, whole


def read_attribute(file: h5py.File, name: str) -> str:
    """Read a text attribute of the root group."""
    value = scalar(file, name)
    if not isinstance(value, str):
        raise ResultError(f"{file.filename} is damaged: its {name} is not a text.")
    return value


def dataset(group: h5py.Group, name: str, *, may_be_virtual: bool = False) -> h5py.Dataset:
    """Return a dataset whose data are in the file itself, or are virtual if that is allowed.

    Raises:
        ResultError: If it is missing, stored elsewhere, or larger than the file.
    """
    found = member(group, name)
    if not isinstance(found, h5py.Dataset):
        raise ResultError(f"{group.file.filename} is damaged: {name!r} is no dataset.")
    if not (may_be_virtual and found.is_virtual):
        require_sound(found)
    return found


def group_of(file: h5py.File, name: str) -> h5py.Group:
    """Return a group that is in the file itself.

    Raises:
        ResultError: If it is missing or a link to another place.
    """
    found = member(file, name)
    if not isinstance(found, h5py.Group):
        raise ResultError(f"{file.filename} is damaged: {name!r} is no group.")
    return found


def read_table(file: h5py.File, name: str) -> tuple[TensorSpec, ...]:
    """Read the tensors of one axis, whose ranges are adjacent and start at 0.

    Raises:
        ResultError: If it is not a table of tensors, or contradicts itself.
    """
    table = dataset(file, name)
    if len(table.shape) != 1 or table.dtype.names != TABLE_FIELDS:
        raise ResultError(f"{file.filename} is damaged: {name} is no table of tensors.")
    tensors, stop = [], 0
    for entry in whole(table):
        shape = json.loads(entry["shape"])
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise ResultError(f"{file.filename} is damaged: {name} holds an invalid shape.")
        tensor = TensorSpec(entry["name"].decode(), tuple(shape), entry["dtype"].decode())
        if (int(entry["start"]), int(entry["stop"])) != (stop, stop + tensor.size):
            raise ResultError(f"{file.filename} is damaged: the ranges of {name} have gaps.")
        stop += tensor.size
        tensors.append(tensor)
    return tuple(tensors)
