"""Choose, name and flatten what a function returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils import _pytree

from jobs.errors import ConfigurationError, unknown
from jobs.functions.loading import LoadedFunction
from jobs.sources.plain_tensors import unlike_plain

_OPTION = "function.output"


def nested(tensors: dict[str, Tensor]) -> Any:
    """Return a single tensor by itself, several as a tuple."""
    values = tuple(tensors.values())
    return values[0] if len(values) == 1 else values


def leaves_of(value: Any) -> list[Any]:
    """Return the outputs of a function as a list, whether it returned one or a container."""
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, tuple | list) else [value]


def chosen_output(value: Any, output: str) -> Any:
    """Return one output of several, or an attribute of an object that a function returns.

    Args:
        value: What the function returns.
        output: The name of an entry, field or attribute, or a position; with dots for entries of
            entries.

    Raises:
        ConfigurationError: There is no such output.
    """
    entries = _named(value)
    # A name may have dots itself.
    first, _, rest = (output, "", "") if output in entries else output.partition(".")
    if first in entries:
        found = entries[first]
    elif isinstance(value, tuple | list) and first.lstrip("-").isdecimal():
        if not -len(value) <= int(first) < len(value):
            raise unknown(_OPTION, output, map(str, range(len(value))))
        found = value[int(first)]
    elif first.isdecimal() and int(first) < len(entries):
        found = list(entries.values())[int(first)]
    elif not isinstance(value, Tensor) and hasattr(value, first):
        found = getattr(value, first)
    else:
        valid = list(entries) or _tensors_of_object(value)
        if not valid:
            raise ConfigurationError(
                f"{_OPTION}={output}: the function returns a single value of type "
                f"{type(value).__name__}; leave the option out"
            )
        raise unknown(_OPTION, output, valid)
    if found is None:
        others = ", ".join(name for name, each in entries.items() if each is not None)
        raise ConfigurationError(
            f"{_OPTION}={output}: the function returns None as {first}"
            + (f"; valid are {others}" if others else "")
        )
    return chosen_output(found, rest) if rest else found


def flat_outputs(function: LoadedFunction, value: Any) -> Any:
    """Return what a function returns, without nesting.

    Args:
        function: The function.
        value: A tensor, or tensors nested in tuples, lists, mappings, dataclasses, named tuples and
            other containers that torch's pytrees or their own fields describe. None is no output.

    Returns:
        A tensor, tuple, list or dictionary of tensors as it is; else the tensors by their paths,
        such as ``hidden_states.0``. What is no container is returned for `named_outputs` to refuse.

    Raises:
        ConfigurationError: There is something else beside tensors, or a tensor of integers.
    """
    if isinstance(value, Tensor) or _children(value) is None:
        return value
    found = dict(_leaves(value, ""))
    for path, leaf in found.items():
        if not isinstance(leaf, Tensor):
            raise _unlike_tensors(function, path, f"of type {type(leaf).__name__}", found)
    floating = [p for p, leaf in found.items() if leaf.is_floating_point() or leaf.is_complex()]
    for path, leaf in found.items():
        if floating and path not in floating:
            kind = f"of {str(leaf.dtype).removeprefix('torch.')}, which has no derivative"
            raise _unlike_tensors(function, path, kind, found)
    if function.output is not None and len(found) == 1:
        return next(iter(found.values()))
    is_plain = type(value) in (tuple, list, dict)
    return value if is_plain and all(isinstance(x, Tensor) for x in leaves_of(value)) else found


def without_batch(function: LoadedFunction, outputs: Any) -> Any:
    """Return flat outputs for a batch of one without that dimension; a single number has none.

    Raises:
        ConfigurationError: One has another leading dimension.
    """
    if isinstance(outputs, dict):
        return {key: without_batch(function, each) for key, each in outputs.items()}
    if isinstance(outputs, tuple | list):
        return type(outputs)(without_batch(function, each) for each in outputs)
    if not isinstance(outputs, Tensor) or outputs.dim() == 0:
        return outputs
    if outputs.shape[0] != 1:
        raise ConfigurationError(
            f"points.batched=true: for a batch of one {function.name} returns the shape "
            f"{tuple(outputs.shape)}; valid is a leading dimension of 1, or a single number"
        )
    return outputs.squeeze(0)


def _unlike_tensors(
    function: LoadedFunction, path: str, kind: str, found: Mapping[str, Any]
) -> ConfigurationError:
    valid = [
        name.removeprefix("output")
        for name, leaf in found.items()
        if isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())
    ]
    hint = f"choose the output by {_OPTION}={', '.join(valid)}" if valid else "valid are tensors"
    return ConfigurationError(f"{function.name} returns {path} {kind}; {hint}")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a value that are no containers, with their paths; not what is None."""
    children = _children(value)
    if children is None:
        yield path, value
        return
    for key, child in children.items():
        if child is not None:
            is_position = isinstance(key, int)
            name = f"{path}.{key}" if path else f"output{key}" if is_position else str(key)
            yield from _leaves(child, name)


def _named(value: Any) -> dict[str, Any]:
    """Return the entries of a container by name or position as text; none if it is no container."""
    return {str(key): child for key, child in (_children(value) or {}).items()}


def _children(value: Any) -> dict[Any, Any] | None:
    """Return the entries of a container by key, field or position; None if it is none."""
    if isinstance(value, Tensor):
        return None
    if isinstance(value, Mapping):
        return _by_text(value)
    fields = getattr(value, "_fields", None)
    if isinstance(value, tuple) and isinstance(fields, tuple):
        return dict(zip(fields, value, strict=True))
    if isinstance(value, tuple | list):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    attributes = getattr(type(value), "__attrs_attrs__", None)
    if attributes is not None:
        return {each.name: getattr(value, each.name) for each in attributes}
    if type(value) in _pytree.SUPPORTED_NODES:
        paths = _pytree.tree_flatten_with_path(value)[0]
        return {_pytree.keystr(path).lstrip("."): leaf for path, leaf in paths}
    return None


def _by_text(value: Mapping[Any, Any]) -> dict[str, Any]:
    found = {str(key): child for key, child in value.items()}
    if len(found) < len(value):
        raise ConfigurationError(
            "the function returns a dictionary two of whose keys are the same as text: "
            + ", ".join(map(str, value))
        )
    return found


def _tensors_of_object(value: Any) -> list[str]:
    """Return the names of the public attributes of an object that are tensors."""
    if isinstance(value, Tensor):
        return []
    found = []
    for name in dir(value):
        # A property may raise anything.
        try:
            is_tensor = not name.startswith("_") and isinstance(getattr(value, name), Tensor)
        except Exception:
            is_tensor = False
        found += [name] if is_tensor else []
    return found


def named_outputs(function: LoadedFunction, value: Any) -> dict[str, Tensor]:
    """Return the outputs by name: known names, the keys of a dictionary, or numbered names.

    Args:
        function: The function.
        value: A tensor, or a flat tuple, list or dictionary of tensors.

    Raises:
        ConfigurationError: The outputs are something else, are not dense numbers in memory, or
            there are none.
    """
    leaves = leaves_of(value)
    if isinstance(value, dict):
        names = tuple(str(key) for key in value)
    elif isinstance(value, tuple | list):
        names = tuple(f"output{index}" for index in range(len(value)))
    else:
        names = ("output",)
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        attributes = _tensors_of_object(value)
        raise ConfigurationError(
            f"{function.name} returns a value of type {type(value).__name__} that is neither a "
            "tensor nor a tuple, list or dictionary of tensors"
            + (f"; {_OPTION}= chooses one of {', '.join(attributes[:12])}" if attributes else "")
            + _factory_hint(function, value)
        )
    for leaf, name in zip(leaves, function.outputs or names, strict=False):
        if reason := unlike_plain(leaf):
            raise ConfigurationError(f"function={function.reference} returns {name}: {reason}")
    if not leaves:
        raise ConfigurationError(f"{function.name} returns no tensors; valid is at least one")
    return dict(zip(function.outputs or names, leaves, strict=True))


def _factory_hint(function: LoadedFunction, value: Any) -> str:
    """Say how a function that returns another one is used."""
    if not callable(value) or isinstance(value, Tensor):
        return ""
    return (
        "; it can be called: with function.factory=true the target is called with "
        "function.keywords and returns the function"
    )
