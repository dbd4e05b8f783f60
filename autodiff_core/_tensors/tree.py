"""Flatten and rebuild nested structures of tensors.

Not all supported versions of torch export its pytree functions publicly, so this module, and no
other, imports the private one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree

TreeStructure = _pytree.TreeSpec


def flatten(tree: Any) -> tuple[list[Any], TreeStructure]:
    """Return the leaves of a nested structure in order, and the structure."""
    return _pytree.tree_flatten(tree)


def rebuild(leaves: Sequence[Any], structure: TreeStructure) -> Any:
    """Return a nested structure with the given leaves; the inverse of `flatten`."""
    return _pytree.tree_unflatten(list(leaves), structure)


def leaves_of_arguments(arguments: Any) -> list[Any]:
    """Return the leaves of an operator's arguments, which nest only tuples, lists and dictionaries.

    It is several times faster than `flatten`, which supports more kinds of nesting.
    """
    found: list[Any] = []
    for part in arguments.values() if type(arguments) is dict else arguments:
        kind = type(part)
        if kind is tuple or kind is list or kind is dict:
            if part:
                found += leaves_of_arguments(part)
        else:
            found.append(part)
    return found


def tensors_among(args: Iterable[Any], kwargs: Mapping[str, Any] | None = None) -> list[Tensor]:
    """Return the tensors among the arguments of an operator, in order."""
    found: list[Tensor] = []
    for part in args:
        if isinstance(part, Tensor):
            found.append(part)
        elif type(part) is list or type(part) is tuple:
            found += tensors_among(part)
    return found + tensors_among(kwargs.values()) if kwargs else found


def with_leaves(change: Callable[[Any], Any], arguments: Any) -> Any:
    """Return an operator's arguments in the same nesting, with `change` applied to each leaf."""
    kind = type(arguments)
    if kind is tuple:
        return tuple([with_leaves(change, part) for part in arguments]) if arguments else arguments
    if kind is list:
        return [with_leaves(change, part) for part in arguments]
    if kind is dict:
        return {name: with_leaves(change, part) for name, part in arguments.items()}
    return change(arguments)


def is_leaf(structure: TreeStructure) -> bool:
    """Return whether a structure is a single leaf without nesting."""
    return structure.is_leaf()


def leaf_paths(tree: Any) -> list[str]:
    """Return the path of every leaf as an index expression such as ``[1]['x']``."""
    return [_pytree.keystr(path) for path, _ in _pytree.tree_flatten_with_path(tree)[0]]
