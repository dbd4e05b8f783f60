"""Load weights of a torch.nn.Module from a file, never from a pickle that could run code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Module

from jobs.errors import ConfigurationError, did_you_mean, text_of, unknown
from jobs.functions.conversions import Conversion, conversions_of_tensors
from jobs.sources.files import require_file
from jobs.sources.plain_tensors import plain
from jobs.sources.tensor_files import load_safetensors, load_torch

_OPTION = "function.weights"
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


def load_weights(module: Module, path: str, key: str | None) -> list[Conversion]:
    """Load the parameters and buffers of a module.

    Args:
        module: The module whose parameters and buffers are all replaced.
        path: A ``.safetensors`` file, or a file that ``torch.save`` wrote.
        key: The key of the weights in a file of ``torch.save``, with dots for nested dictionaries;
            None if the weights are at its top level.

    Returns:
        What is done to the weights of the file.

    Raises:
        ConfigurationError: The file does not exist or does not fit the module.
    """
    file = Path(path)
    require_file(_OPTION, path)
    if file.suffix not in _SUFFIXES:
        raise ConfigurationError(f"{_OPTION}={path}: valid are files {', '.join(_SUFFIXES)}")
    loaded: Any
    if file.suffix == ".safetensors":
        loaded = load_safetensors(_OPTION, path)
    else:
        loaded = load_torch(_OPTION, path)
    state = module.state_dict(keep_vars=True)
    own = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    # A module may keep other objects among them, which it takes back itself.
    others = {name for name in state if name not in own}
    found = _within(path, loaded, key, others)
    weights = {name: tensor for name, tensor in found.items() if name not in others}
    _check(path, weights, own)
    # The default, assign=False, copies into the module's own tensors, so that tied ones stay tied.
    try:
        module.load_state_dict(dict(found))
    # What a module does with its other objects is its own code.
    except Exception as error:
        reason = " ".join(text_of(error).split())
        raise ConfigurationError(
            f"{_OPTION}={path}: the module does not take this state: {reason}"
        ) from error
    return conversions_of_tensors(
        "weights",
        [(name, tensor, own[name].dtype, own[name].device) for name, tensor in weights.items()],
    )


def _within(path: str, loaded: Any, key: str | None, others: Collection[str]) -> dict[str, Any]:
    """Return the state at a key: tensors, and under some names other objects."""
    found = loaded
    for part in key.split(".") if key else []:
        if not isinstance(found, Mapping) or part not in found:
            raise unknown(f"{_OPTION}_key", key, _names(found))
        found = found[part]
    if isinstance(found, Mapping) and all(
        isinstance(value, Tensor) or name in others for name, value in found.items()
    ):
        return {
            name: value if name in others else plain(value, f"{_OPTION}={path}, {name}")
            for name, value in found.items()
        }
    nested = [name for name in _names(found) if isinstance(found[name], Mapping)]
    hint = f"; the weights may be under one of {_OPTION}_key={', '.join(nested)}" if nested else ""
    raise ConfigurationError(
        f"{_OPTION}={path}: this is not a dictionary of tensors, such as module.state_dict(){hint}"
    )


def _names(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, Mapping) else []


def _check(path: str, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    # A file may leave out all but one of the tensors that are tied to one another.
    given = {own[name].data_ptr() for name in weights if name in own}
    missing = [name for name in own if name not in weights and own[name].data_ptr() not in given]
    surplus = [name for name in weights if name not in own]
    if missing or surplus:
        parts = [f"has no {_some(missing)}"] if missing else []
        parts += [f"has {_some(surplus)}, which the module has not"] if surplus else []
        hint = did_you_mean(surplus[0], own) if surplus else ""
        raise ConfigurationError(f"{_OPTION}={path}: the file {' and '.join(parts)}{hint}")
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise ConfigurationError(
                f"{_OPTION}={path}: {name} has the shape {tuple(tensor.shape)} in the file and "
                f"{tuple(own[name].shape)} in the module"
            )
        if tensor.is_complex() and not own[name].is_complex():
            raise ConfigurationError(
                f"{_OPTION}={path}: {name} is complex in the file and real in the module, which "
                "would lose the imaginary parts"
            )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
