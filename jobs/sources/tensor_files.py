"""Read arrays from files of numpy, safetensors and torch; pickled objects are always refused."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.configuration.schema import NumpySource, SafetensorsSource, TorchSource
from jobs.errors import ConfigurationError, JobError, unknown
from jobs.sources.npz import NpzArray, npz_arrays
from jobs.sources.plain_tensors import plain
from jobs.sources.source_array import SourceArray

_NPY = b"\x93NUMPY"


def read_numpy(option: str, config: NumpySource) -> dict[str, SourceArray]:
    """Map a ``.npy`` file into memory, or open the wanted arrays of an ``.npz`` archive.

    Raises:
        ConfigurationError: The file is damaged, another kind of file, or holds Python objects.
    """
    try:
        loaded = _load_numpy(option, config)
    except JobError:
        raise
    # A damaged file makes numpy and zipfile raise errors of many types.
    except Exception as error:
        raise ConfigurationError(
            f"{option}.path={config.path}: this is not a readable .npy or .npz file without Python "
            "objects"
        ) from error
    origin = f"{option}.path={config.path}"
    return {
        name: SourceArray(array, origin + (f", array {name}" if name else ""))
        for name, array in loaded.items()
    }


def read_safetensors(option: str, config: SafetensorsSource) -> dict[str, SourceArray]:
    """Read the tensors of a ``.safetensors`` file, as memory maps.

    Raises:
        ConfigurationError: The file is damaged or another kind of file.
    """
    tensors = load_safetensors(f"{option}.path", config.path)
    return _arrays(option, config.path, tensors, config.tensors)


def read_torch(option: str, config: TorchSource) -> dict[str, SourceArray]:
    """Read a tensor or dictionary of tensors that ``torch.save`` wrote, as memory maps.

    Raises:
        ConfigurationError: The file is damaged, another kind of file, or holds anything else.
    """
    loaded = load_torch(f"{option}.path", config.path)
    if isinstance(loaded, Tensor):
        origin = f"{option}.path={config.path}"
        return {"": SourceArray(plain(loaded, origin), origin)}
    if isinstance(loaded, Mapping):
        tensors = {key: value for key, value in loaded.items() if isinstance(value, Tensor)}
        wanted = config.tensors is not None and {*config.tensors} <= {*map(str, tensors)}
        if len(tensors) == len(loaded) or wanted:
            return _arrays(option, config.path, tensors, config.tensors)
    raise ConfigurationError(
        f"{option}.path={config.path}: this holds a value of type {type(loaded).__name__}; valid "
        "is a tensor or a dictionary of tensors; of a dictionary with other values as well, "
        f"{option}.tensors=[...] selects the tensors"
    )


def load_safetensors(option: str, path: str | Path) -> dict[str, Tensor]:
    """Map all tensors of a ``.safetensors`` file into memory, without reading them.

    Args:
        option: The option that names the file, for messages.
        path: The file.

    Raises:
        ConfigurationError: The file is damaged or another kind of file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConfigurationError(
            f"{option}={path}: this is not a readable .safetensors file"
        ) from error


def load_torch(option: str, path: str | Path) -> Any:
    """Load a file that ``torch.save`` wrote, if it holds only tensors and plain values.

    Args:
        option: The option that names the file, for messages.
        path: The file.

    Raises:
        ConfigurationError: The file is damaged, another kind of file, or holds other objects.
    """
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        # Files of torch before 1.6 cannot be mapped.
        except RuntimeError:
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ConfigurationError(
            f"{option}={path}: this holds more than tensors and plain values, and loading it could "
            "run code; save a dictionary of tensors, such as model.state_dict()"
        ) from error
    # A damaged file makes torch, zipfile and pickle raise errors of many types.
    except Exception as error:
        raise ConfigurationError(
            f"{option}={path}: this is not a readable file of torch.save"
        ) from error


def _load_numpy(option: str, config: NumpySource) -> Mapping[str, np.ndarray | NpzArray]:
    path = config.path
    with open(path, "rb") as file:
        is_single = file.read(len(_NPY)) == _NPY
    if not is_single:
        return npz_arrays(option, path, config.arrays)
    try:
        return {"": np.load(path, mmap_mode="r", allow_pickle=False)}
    # An array without elements cannot be mapped.
    except ValueError:
        return {"": np.load(path, allow_pickle=False)}


def _member(archive: Any, name: str) -> Any:
    """Return an array of an archive; an empty one of objects where it holds Python objects."""
    try:
        return archive[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        # Refused if it is needed; it may be what the function does not take.
        return np.empty(0, object)


def _arrays(
    option: str, path: str, tensors: Mapping[Any, Tensor], names: Iterable[str] | None
) -> dict[str, SourceArray]:
    """Return the tensors by the text of their names; if there are `names`, those alone."""
    by_text = {str(name): tensor for name, tensor in tensors.items()}
    if len(by_text) < len(tensors):
        raise ConfigurationError(
            f"{option}.path={path}: two tensors have the same name as text; there are "
            f"{', '.join(map(repr, tensors))}"
        )
    arrays = {}
    for name in chosen(f"{option}.tensors", by_text, names):
        origin = f"{option}.path={path}, tensor {name}"
        arrays[name] = SourceArray(plain(by_text[name], origin), origin)
    return arrays


def chosen(option: str, names: Iterable[str], wanted: Iterable[str] | None) -> list[str]:
    """Return the wanted names, or all of them.

    Args:
        option: The option that holds the wanted names, for messages.
        names: The names that there are.
        wanted: The wanted names; None for all.

    Raises:
        ConfigurationError: There is no such name.
    """
    given = list(names)
    for name in wanted or ():
        if name not in given:
            raise unknown(option, name, given)
    return given if wanted is None else list(wanted)
