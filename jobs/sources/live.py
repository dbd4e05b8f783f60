"""Arrays that a program passes: tensors, and what numpy makes arrays of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import Parameter

from jobs.errors import ConfigurationError
from jobs.sources.plain_tensors import plain
from jobs.sources.source_array import SourceArray, name_of

_VALID = "valid is a tensor or an array, or a tuple, list or dictionary of them"


def held_arrays(option: str, given: Any) -> Any:
    """Return what a program passes as arrays, without copies.

    Args:
        option: What it is, for messages.
        given: A tensor or an array; or several in a tuple, a list or a dictionary by name.

    Returns:
        A tensor or numpy array; a tuple or a dictionary if there are several.

    Raises:
        ConfigurationError: It is something else.
    """
    if isinstance(given, Mapping):
        for name in given:
            if not isinstance(name, str):
                raise ConfigurationError(f"{option}: the key {name!r} is no text; {_VALID}")
        return {name: _array(f"{option}, {name}", each) for name, each in given.items()}
    if isinstance(given, list | tuple):
        return tuple(_array(f"{option}[{index}]", each) for index, each in enumerate(given))
    return _array(option, given)


def forms_of(held: Any) -> dict[str, str]:
    """Return dtype and shape of each array as text, by its name or position."""
    several = held if isinstance(held, tuple) else (held,)
    named = held if isinstance(held, dict) else dict(enumerate(several))
    return {str(name): _form(each) for name, each in named.items()}


def live_arrays(option: str, held: Any, names: tuple[str, ...]) -> dict[str, SourceArray]:
    """Return arrays by name.

    Args:
        option: The option that they stand for, for messages.
        held: What `held_arrays` has returned.
        names: The names that arrays without a name get, in order.

    Raises:
        ConfigurationError: There are too many or too few arrays without a name.
    """
    if isinstance(held, dict):
        return {name: SourceArray(each, option) for name, each in held.items()}
    arrays = held if isinstance(held, tuple) else (held,)
    if len(arrays) != len(names):
        raise ConfigurationError(
            f"{option}: {len(arrays)} arrays are given; the function needs {', '.join(names)}"
        )
    if len(arrays) == 1:
        return {"": SourceArray(arrays[0], option)}
    return {name: SourceArray(each, option) for name, each in zip(names, arrays, strict=True)}


def _array(option: str, given: Any) -> Tensor | np.ndarray:
    if isinstance(given, Tensor):
        if type(given) not in (Tensor, Parameter):
            raise ConfigurationError(
                f"{option}: this is of type {type(given).__name__}, whose operations may differ "
                "from those of a tensor; valid is what its method as_subclass(torch.Tensor) returns"
            )
        return plain(given, option)
    if isinstance(given, np.ma.MaskedArray):
        raise ConfigurationError(f"{option}: this array has a mask, which torch has not; {_VALID}")
    # Numbers, texts and lists become arrays of numpy too, and may be meant otherwise.
    if not hasattr(given, "__array__"):
        raise ConfigurationError(f"{option}: this is of type {type(given).__name__}; {_VALID}")
    try:
        array = np.asarray(given)
    # An array of another library may refuse in any way.
    except Exception as error:
        raise ConfigurationError(f"{option}: {error}; {_VALID}") from error
    if array.dtype.kind not in "fiucb":
        raise ConfigurationError(
            f"{option}: this is of dtype {array.dtype}; valid are real and complex numbers"
        )
    return array


def _form(array: Tensor | np.ndarray) -> str:
    dtype = name_of(array.dtype) if isinstance(array, Tensor) else array.dtype.name
    return f"{dtype} {tuple(array.shape)}"
