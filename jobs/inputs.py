"""Where tensors come from: the point of a job, and the vectors of a product."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jobs.errors import ConfigurationError, unknown
from jobs.functions import LoadedFunction, argument_names
from jobs.schema import (
    Hdf5Inputs,
    Hdf5Vectors,
    InputsConfig,
    NumpyInputs,
    NumpyVectors,
    RandomInputs,
    RandomVectors,
    VectorsConfig,
)

DISTRIBUTIONS = ("normal", "uniform")


def load_point(
    config: InputsConfig, function: LoadedFunction, dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """The point at which the function is differentiated.

    Args:
        config: The option `inputs`.
        function: The function; its default point gives names and shapes where it has one.
        dtype: The dtype of all tensors.
        device: Their device.

    Returns:
        Argument name to tensor, in the order of the arguments.

    Raises:
        ConfigurationError: The source does not exist or does not fit the function.
    """
    if isinstance(config, RandomInputs):
        layouts = {name: (shape, dtype) for name, shape in _random_shapes(config, function).items()}
        arrays = draw(layouts, config.distribution, config.scale, config.seed, "inputs")
    elif isinstance(config, NumpyInputs):
        arrays = _read_numpy("inputs", config.path)
    elif isinstance(config, Hdf5Inputs):
        arrays = _read_hdf5("inputs", config.path, config.datasets)
    elif function.point is not None:
        for name, tensor in function.point.items():
            _check_finite("inputs=default", name, int((~tensor.isfinite()).sum()))
        return function.point
    else:
        raise ConfigurationError(
            f"inputs=default: {function.name} has no default point; valid are function.point="
            "mypackage.module:name, inputs=random with inputs.shapes=[[...]], inputs=numpy and "
            "inputs=hdf5"
        )
    named = _named_like_arguments(arrays, function)
    if function.point is not None:
        _check_shapes("inputs", named, {k: tuple(v.shape) for k, v in function.point.items()})
    return {name: _tensor("inputs", name, a, dtype, device) for name, a in named.items()}


def load_vectors(
    config: VectorsConfig,
    like: Mapping[str, Tensor],
    dtype: torch.dtype,
    device: torch.device,
) -> dict[str, Tensor]:
    """The vectors of a product, stacked along a leading dimension.

    Args:
        config: The option `vectors`.
        like: The tensors that the vectors multiply; they have the same dtypes.
        dtype: The dtype of vectors that multiply integers.
        device: Their device.

    Raises:
        ConfigurationError: The source does not exist or does not fit the tensors.
    """
    if not like:
        raise ConfigurationError("vectors: the function returns no tensors, so there are none")
    shapes = {name: tuple(tensor.shape) for name, tensor in like.items()}
    dtypes = {
        name: tensor.dtype if tensor.is_floating_point() or tensor.is_complex() else dtype
        for name, tensor in like.items()
    }
    if isinstance(config, RandomVectors):
        if config.count < 1:
            raise ConfigurationError(f"vectors.count={config.count}: valid are integers from 1 on")
        stacked = {name: ((config.count, *shape), dtypes[name]) for name, shape in shapes.items()}
        arrays = draw(stacked, config.distribution, config.scale, config.seed, "vectors")
    elif isinstance(config, NumpyVectors):
        arrays = _read_numpy("vectors", config.path)
    elif isinstance(config, Hdf5Vectors):
        arrays = _read_hdf5("vectors", config.path, config.datasets)
    else:
        raise unknown("vectors", config.source, ("random", "numpy", "hdf5"))
    arrays = _renamed("vectors", arrays, tuple(like))
    counts = {array.shape[:1] for array in arrays.values()}
    if len(counts) != 1 or counts == {()} or counts == {(0,)}:
        raise ConfigurationError(
            "vectors: all arrays need the same leading dimension over vectors; their shapes are "
            + ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        )
    ((count,),) = counts
    _check_shapes("vectors", arrays, {name: (count, *shape) for name, shape in shapes.items()})
    return {name: _tensor("vectors", name, a, dtypes[name], device) for name, a in arrays.items()}


def draw(
    layouts: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
    distribution: str,
    scale: float,
    seed: int,
    option: str,
) -> dict[str, np.ndarray]:
    """Draw arrays from a generator of their own, the same for every dtype up to rounding.

    Args:
        layouts: Name to shape and to the dtype that decides between real and complex numbers.
        distribution: One of `DISTRIBUTIONS`.
        scale: What they are multiplied with.
        seed: Of the generator.
        option: The option that asks for them, for messages.

    Raises:
        ConfigurationError: An unknown distribution or a seed that is none.
    """
    if distribution not in DISTRIBUTIONS:
        raise unknown(f"{option}.distribution", distribution, DISTRIBUTIONS)
    if not 0 <= seed < 2**63:
        raise ConfigurationError(f"{option}.seed={seed}: valid is an integer from 0 to 2^63 - 1")
    generator = np.random.default_rng(seed)
    sample: Callable[[tuple[int, ...]], np.ndarray]
    sample = generator.standard_normal if distribution == "normal" else generator.random
    drawn = {}
    for name, (shape, dtype) in layouts.items():
        values = np.asarray(sample(shape))
        if dtype.is_complex:
            values = values + 1j * np.asarray(sample(shape))
        drawn[name] = scale * values
    return drawn


def _random_shapes(config: RandomInputs, function: LoadedFunction) -> dict[str, tuple[int, ...]]:
    if config.shapes is not None:
        if any(length < 0 for shape in config.shapes for length in shape):
            raise ConfigurationError(
                f"inputs.shapes={config.shapes}: the length of a dimension is 0 or more"
            )
        names = argument_names(function.arguments, len(config.shapes))
        return {name: tuple(shape) for name, shape in zip(names, config.shapes, strict=True)}
    if function.point is None:
        raise ConfigurationError(
            f"inputs=random: the shapes of the arguments of {function.name} are not known; give "
            "them in order, such as inputs.shapes=[[10,3],[10]]"
        )
    return {name: tuple(tensor.shape) for name, tensor in function.point.items()}


def _read_numpy(option: str, path: str) -> dict[str, np.ndarray]:
    _require_file(option, path)
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            with loaded as archive:
                return {name: archive[name] for name in archive.files}
    # A damaged file makes numpy and zipfile raise errors of many types.
    except Exception as error:
        raise ConfigurationError(
            f"{option}.path={path}: this is no readable .npy or .npz file without Python objects"
        ) from error


def _read_hdf5(option: str, path: str, datasets: Sequence[str]) -> dict[str, np.ndarray]:
    import h5py

    _require_file(option, path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ConfigurationError(f"{option}.path={path}: this is no readable HDF5 file") from error
    arrays = {}
    with file:
        for name in datasets:
            found = file.get(name)
            if not isinstance(found, h5py.Dataset):
                valid: list[str] = []
                file.visititems(
                    lambda key, item, valid=valid: (
                        valid.append("/" + key) if isinstance(item, h5py.Dataset) else None
                    )
                )
                raise unknown(f"{option}.datasets", name, valid)
            arrays[name.rpartition("/")[2]] = found[()]
    if len(arrays) != len(datasets):
        raise ConfigurationError(
            f"{option}.datasets={list(datasets)}: two datasets have the same last name"
        )
    return arrays


def _require_file(option: str, path: str) -> None:
    if not Path(path).is_file():
        raise ConfigurationError(
            f"{option}.path={path}: there is no such file; looked for {Path(path).absolute()}"
        )


def _named_like_arguments(
    arrays: dict[str, np.ndarray], function: LoadedFunction
) -> dict[str, np.ndarray]:
    if function.arguments is not None:
        return _renamed("inputs", arrays, function.arguments)
    if len(arrays) == 1 and "" in arrays:
        return {"input": arrays[""]}
    return arrays


def _renamed(
    option: str, arrays: dict[str, np.ndarray], names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Arrays in the order of the names they stand for; a single one needs no name of its own."""
    if set(arrays) == set(names):
        return {name: arrays[name] for name in names}
    if len(arrays) == len(names) == 1:
        return dict(zip(names, arrays.values(), strict=True))
    given = ", ".join(name or "a single array" for name in arrays)
    raise ConfigurationError(
        f"{option}: the source holds {given}; the function needs {', '.join(names)}"
    )


def _check_shapes(
    option: str, arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]
) -> None:
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ConfigurationError(
                f"{option}: {name} has the shape {arrays[name].shape}; the function needs {shape}"
            )


def _tensor(
    option: str, name: str, array: np.ndarray, dtype: torch.dtype, device: torch.device
) -> Tensor:
    if array.dtype.kind not in "fiucb":
        raise ConfigurationError(
            f"{option}: {name} is of dtype {array.dtype}; valid are real and complex numbers"
        )
    if array.dtype.kind == "c" and not dtype.is_complex:
        raise ConfigurationError(
            f"{option}: {name} is complex where {str(dtype).removeprefix('torch.')} is needed; "
            "valid for complex inputs are dtype=complex64 and dtype=complex128"
        )
    if array.dtype.kind in "fc":
        _check_finite(option, name, int((~np.isfinite(array)).sum()))
    # Byte order and half-known dtypes are numpy's business, not torch's.
    wide = np.complex128 if array.dtype.kind == "c" else np.float64
    return torch.from_numpy(np.array(array, dtype=wide)).to(device, dtype)


def _check_finite(option: str, name: str, count: int) -> None:
    if count:
        raise ConfigurationError(f"{option}: {name} holds {count} values that are not finite")
