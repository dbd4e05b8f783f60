"""Read arrays from files of numpy, safetensors and torch; pickled objects are always refused."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.configuration.schema import NumpySource, SafetensorsSource, TorchSource
from jobs.errors import ConfigurationError
from jobs.sources.source_array import SourceArray

_NPY = b"\x93NUMPY"


def read_numpy(option: str, config: NumpySource) -> dict[str, SourceArray]:
    """Read a ``.npy`` file as a memory map, or the arrays of an ``.npz`` archive.

    Raises:
        ConfigurationError: The file is damaged, another kind of file, or holds Python objects.
    """
    try:
        loaded = _load_numpy(config.path)
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
    return _arrays(option, config.path, tensors)


def read_torch(option: str, config: TorchSource) -> dict[str, SourceArray]:
    """Read a tensor or dictionary of tensors that ``torch.save`` wrote, as memory maps.

    Raises:
        ConfigurationError: The file is damaged, another kind of file, or holds anything else.
    """
    loaded = load_torch(f"{option}.path", config.path)
    if isinstance(loaded, Tensor):
        return {"": SourceArray(loaded.detach(), f"{option}.path={config.path}")}
    if isinstance(loaded, Mapping) and all(isinstance(v, Tensor) for v in loaded.values()):
        return _arrays(option, config.path, loaded)
    raise ConfigurationError(
        f"{option}.path={config.path}: this holds a value of type {type(loaded).__name__}; valid "
        "is a tensor or a dictionary of tensors"
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


def _load_numpy(path: str) -> dict[str, np.ndarray]:
    with open(path, "rb") as file:
        is_single = file.read(len(_NPY)) == _NPY
        file.seek(0)
        if not is_single:
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    try:
        return {"": np.load(path, mmap_mode="r", allow_pickle=False)}
    # An array without elements cannot be mapped.
    except ValueError:
        return {"": np.load(path, allow_pickle=False)}


def _arrays(option: str, path: str, tensors: Mapping[Any, Tensor]) -> dict[str, SourceArray]:
    return {
        str(name): SourceArray(tensor.detach(), f"{option}.path={path}, tensor {name}")
        for name, tensor in tensors.items()
    }
