"""Nested structures of tensors, flattened and rebuilt.

torch has a public name for its pytree functions only in some of the versions that are
supported, so the private module is imported here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils import _pytree

TreeStructure = _pytree.TreeSpec


def flatten(tree: Any) -> tuple[list[Any], TreeStructure]:
    """The leaves of a nested structure in order, and the structure."""
    return _pytree.tree_flatten(tree)


def rebuild(leaves: Sequence[Any], structure: TreeStructure) -> Any:
    """The nested structure with the given leaves; the inverse of `flatten`."""
    return _pytree.tree_unflatten(list(leaves), structure)


def leaves_of_arguments(arguments: Any) -> list[Any]:
    """The leaves of an operator's arguments, which are tuples, lists and dictionaries alone.

    Several times faster than `flatten`, which knows more kinds of nesting.
    """
    found: list[Any] = []
    _collect(arguments, found)
    return found


def _collect(tree: Any, found: list[Any]) -> None:
    for part in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(part, (tuple, list, dict)):
            _collect(part, found)
        else:
            found.append(part)


def with_leaves(change: Callable[[Any], Any], arguments: Any) -> Any:
    """An operator's arguments, nested as they are, with each leaf changed."""
    if isinstance(arguments, dict):
        return {name: with_leaves(change, part) for name, part in arguments.items()}
    if isinstance(arguments, list):
        return [with_leaves(change, part) for part in arguments]
    if isinstance(arguments, tuple):
        return tuple([with_leaves(change, part) for part in arguments])
    return change(arguments)


def is_leaf(structure: TreeStructure) -> bool:
    """Whether the structure is that of a single leaf, nested in nothing."""
    return structure.is_leaf()


def leaf_paths(tree: Any) -> list[str]:
    """For every leaf how one reaches it, written as an index expression such as ``[1]['x']``."""
    return [_pytree.keystr(path) for path, _ in _pytree.tree_flatten_with_path(tree)[0]]
