"""Read datasets of HDF5 files, and the point of an earlier result."""

from __future__ import annotations

import h5py

from jobs.configuration.schema import Hdf5Source, ResultSource
from jobs.errors import ConfigurationError, unknown
from jobs.sources.source_array import SourceArray
from outputs import ResultError, find_dataset, is_sparse_result, open_result, open_sparse_result


def read_hdf5(option: str, config: Hdf5Source) -> dict[str, SourceArray]:
    """Open datasets, named by the last part of their path; data are read when they are indexed.

    Raises:
        ConfigurationError: The file is damaged or another kind of file, has no such dataset, or a
            dataset is behind a link, or in another file, and `links` is not set.
    """
    try:
        # Not closed here: HDF5 closes the file with the last of its datasets.
        file = h5py.File(config.path, "r")
    except OSError as error:
        raise ConfigurationError(
            f"{option}.path={config.path}: this is not a readable HDF5 file"
        ) from error
    arrays: dict[str, SourceArray] = {}
    for name in config.datasets:
        found = _dataset(option, config, file, name)
        last = name.rpartition("/")[2]
        if last in arrays:
            raise ConfigurationError(
                f"{option}.datasets={list(config.datasets)}: two datasets have the same last name"
            )
        arrays[last] = SourceArray(found, f"{option}.path={config.path}, dataset {name}")
    return arrays


def _dataset(option: str, config: Hdf5Source, file: h5py.File, name: str) -> h5py.Dataset:
    try:
        found = find_dataset(file, name, links=config.links)
    except ResultError as error:
        hint = (
            ""
            if config.links or "another" not in str(error)
            else f"; {option}.links=true follows links to other places"
        )
        raise ConfigurationError(
            f"{option}.path={config.path}, dataset {name}: {error}{hint}"
        ) from error
    if found is None:
        raise unknown(f"{option}.datasets", name, _datasets(file))
    if found.shape is None:
        raise ConfigurationError(
            f"{option}.path={config.path}, dataset {name}: its dataspace is null, so it holds no "
            "numbers"
        )
    return found


def read_result(option: str, config: ResultSource) -> dict[str, SourceArray]:
    """Read the tensors of the point of an earlier job.

    Raises:
        ConfigurationError: The file is not a finished result.
    """
    try:
        is_sparse = is_sparse_result(config.path)
        opened = open_sparse_result(config.path) if is_sparse else open_result(config.path)
        with opened as result:
            result.require_intact()
            point = result.points
    except ResultError as error:
        raise ConfigurationError(f"{option}.path={config.path}: {error}") from error
    return {
        name: SourceArray(array, f"{option}.path={config.path}, point {name}")
        for name, array in point.items()
    }


def _datasets(file: h5py.File) -> list[str]:
    names: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            names.append("/" + name)

    file.visititems(visit)
    return names
