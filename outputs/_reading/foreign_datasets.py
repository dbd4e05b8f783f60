"""Find datasets in HDF5 files of any origin, and check that their data are where they should be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py

from outputs._errors import ResultError
from outputs._format.validation import member, require_sound
from outputs._storage.files import open_file, parsed

# The variables that tell HDF5 to look for virtual sources and external files elsewhere.
_PREFIXES = {"source": "HDF5_VDS_PREFIX", "external file": "HDF5_EXTFILE_PREFIX"}
_DEEPEST = 8


def find_dataset(file: h5py.File, name: str, *, links: bool = False) -> h5py.Dataset | None:
    """Return a dataset of an open file, or None if the file has none of that name.

    Where HDF5 does not find the data of a dataset, it silently reads zeros; where a link leads to
    another file, the numbers are not those of the file that was named.

    Args:
        file: An HDF5 file, open for reading.
        name: The path of the dataset in the file.
        links: Whether links, virtual datasets and external files may be followed. Every file behind
            them must then exist and hold what is read from it.

    Raises:
        ResultError: If the dataset or a group before it is a link, its data are in another file or
            cannot be as large as declared, or, with ``links``, what is behind them is missing.
    """
    with parsed(Path(file.filename)):
        found = _followed(file, name) if links else _own(file, name)
        if not isinstance(found, h5py.Dataset):
            return None
        _require_complete(found, links, _DEEPEST)
        return found


def _own(file: h5py.File, name: str) -> Any:
    """Return an object on whose path there is no link."""
    found: Any = file
    for part in filter(None, name.split("/")):
        if not isinstance(found, h5py.Group) or found.get(part, getlink=True) is None:
            return None
        found = member(found, part)
    return found


def _followed(file: h5py.File, name: str) -> Any:
    """Return an object, wherever links lead.

    Raises:
        ResultError: If a link on the path leads nowhere.
    """
    found: Any = file
    for part in filter(None, name.split("/")):
        if not isinstance(found, h5py.Group) or found.get(part, getlink=True) is None:
            return None
        try:
            found = found[part]
        except (KeyError, OSError, RuntimeError) as error:
            raise ResultError(
                f"{file.filename}: {name} is behind a link that leads nowhere ({error})."
            ) from error
    return found


def _require_complete(dataset: h5py.Dataset, links: bool, depth: int) -> None:
    """Check that all data of a dataset exist, in its file or, with ``links``, in others.

    Raises:
        ResultError: If they do not.
    """
    if links and dataset.is_virtual:
        _require_sources(dataset, depth)
    elif links and dataset.external:
        _require_external_files(dataset)
    else:
        require_sound(dataset)


def _require_external_files(dataset: h5py.Dataset) -> None:
    _require_no_prefix(dataset, "external file")
    held = 0
    for name, offset, size in dataset.external or ():
        file = Path(os.fsdecode(name))
        if not file.is_file():
            raise _missing(dataset, f"the external file {file}")
        rest = max(0, file.stat().st_size - offset)
        if size != h5py.h5f.UNLIMITED and rest < size:
            raise _missing(dataset, f"the end of the external file {file}")
        held += rest if size == h5py.h5f.UNLIMITED else size
    if dataset.shape is None or dataset.dtype.hasobject or dataset.nbytes > held:
        raise _missing(dataset, "the end of its external files")


def _require_sources(dataset: h5py.Dataset, depth: int) -> None:
    _require_no_prefix(dataset, "source")
    if not depth:
        raise ResultError(f"{dataset.file.filename}: virtual datasets are nested too deeply.")
    covered: Any = None
    properties = dataset.id.get_create_plist()
    for index, mapping in enumerate(dataset.virtual_sources()):
        _require_source(dataset, mapping, properties.get_virtual_srcspace(index), depth)
        space = mapping.vspace
        covered = space if covered is None else covered.combine_select(space)
    if covered is None or covered.get_select_npoints() != dataset.size:
        raise _missing(dataset, "a part that none of its sources holds")


def _require_source(dataset: h5py.Dataset, mapping: Any, space: Any, depth: int) -> None:
    own = Path(dataset.file.filename).absolute()
    path = own if mapping.file_name == "." else own.parent / mapping.file_name
    if not path.is_file():
        raise _missing(dataset, f"its source {path}")
    with open_file(path, "r") as file:
        source = _followed(file, mapping.dset_name)
        if not isinstance(source, h5py.Dataset):
            raise _missing(dataset, f"{mapping.dset_name} of its source {path}")
        # The last place that is read, which must be within the source.
        last = space.get_select_bounds()[1]
        extents = source.shape or ()
        if len(last) != len(extents) or any(i >= n for i, n in zip(last, extents, strict=True)):
            raise _missing(dataset, f"a part of {mapping.dset_name} of its source {path}")
        _require_complete(source, True, depth - 1)


def _require_no_prefix(dataset: h5py.Dataset, kind: str) -> None:
    variable = _PREFIXES[kind]
    if os.environ.get(variable):
        raise ResultError(
            f"{dataset.file.filename}: {dataset.name} refers to another file, and the environment "
            f"variable {variable} tells HDF5 to look elsewhere; unset it."
        )


def _missing(dataset: h5py.Dataset, what: str) -> ResultError:
    return ResultError(
        f"{dataset.file.filename}: {dataset.name} lacks {what}; HDF5 would read zeros there."
    )
