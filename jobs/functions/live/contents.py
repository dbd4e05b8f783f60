"""What counts of objects that are more than data: classes, modules of torch, operators."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import Module

# What a class holds beside what its instances do. torch numbers the classes of its own functions.
_OF_CLASSES = {
    *("__doc__", "__module__", "__dict__", "__weakref__", "__qualname__", "__annotations__"),
    *("__annotate__", "__annotate_func__", "__annotations_cache__", "__firstlineno__"),
    *("__static_attributes__", "__orig_bases__", "__parameters__", "__abstractmethods__"),
    *("_abc_impl", "__dataclass_fields__", "__dataclass_params__", "__match_args__"),
    "__slotnames__",  # what pickle remembers of a class
    *("_backward_cls", "_autograd_function_id"),
}
_DESCRIPTORS = ("member_descriptor", "getset_descriptor")
_OF_MODULES = {*vars(Module()), "_compiled_call_impl"}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
# How the hooks of the same number are called.
_MANNERS = (
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
_OF_TORCH = ("aten", "prim", "prims")
# Of an operator that is defined by torch.library.custom_op.
_OF_OPERATORS = (
    *("_init_fn", "_backend_fns", "_backward_fn", "_setup_context_fn", "_vmap_fn"),
    *("_torch_dispatch_fns", "_autocast_dtype"),
)


def class_entries(found: type) -> dict[str, Any]:
    """Return the attributes of a class on which its instances depend, in order of their names."""
    return {
        name: value
        for name, value in sorted(vars(found).items())
        if name not in _OF_CLASSES and type(value).__name__ not in _DESCRIPTORS
    }


def class_facts(found: type) -> list[Any]:
    """Return what else counts: a metaclass, and the metadata of the fields of a dataclass."""
    facts: list[Any] = [] if type(found) is type else [type(found)]
    fields: Mapping[str, Any] = vars(found).get("__dataclass_fields__", {})
    metadata = {name: each.metadata for name, each in fields.items() if each.metadata}
    return [*facts, metadata] if metadata else facts


def module_facts(module: Module) -> tuple[dict[str, Any], list[Any]]:
    """Return the attributes of a module of torch beside its tensors and parts, and its hooks."""
    held = vars(module)
    own = {name: value for name, value in sorted(held.items()) if name not in _OF_MODULES}
    hooks: list[Any] = [list(held.get(name, {}).values()) for name in _HOOKS]
    numbers = [number for name in _HOOKS for number in held.get(name, {})]
    manners = [[number in held.get(name, ()) for number in numbers] for name in _MANNERS]
    if any(map(any, manners)) or held.get("_is_full_backward_hook") is not None:
        hooks.append([manners, held.get("_is_full_backward_hook")])
    return own, hooks


def operator_facts(value: Any) -> list[Any] | None:
    """Return what an operator of torch computes; None if this is none.

    Those that are defined in Python by torch.library.custom_op have functions; others a name.

    Raises:
        LookupError: Python kernels of the user's compute it, which torch does not give back.
    """
    definition = value if type(value).__name__ == "CustomOpDef" else None
    if definition is None:
        if type(value).__module__ != "torch._ops":
            return None
        name = str(getattr(value, "_qualified_op_name", value)).replace(".", "::", 1)
        name = value.name() if isinstance(value, torch._ops.OpOverload) else name
        space, _, rest = name.partition("::")
        if space in _OF_TORCH:
            return [str(value)]
        definition = _definitions().get(f"{space}::{rest.partition('.')[0]}")
        if definition is None:
            if _has_python_kernels(space, rest):
                raise LookupError(f"the operator {name}, whose kernels are of Python")
            return [str(value)]
    return [getattr(definition, part, None) for part in _OF_OPERATORS]


def _definitions() -> Mapping[str, Any]:
    from torch._library.custom_ops import OPDEFS

    return OPDEFS


def _has_python_kernels(space: str, name: str) -> bool:
    kernels: set[str] = getattr(torch.library, "_impls", set())
    found = (each for each in kernels if each.startswith(f"{space}/{name}"))
    return any(not each.endswith("/Meta") for each in found)


def reduction_of(value: Any, *, is_of_user: bool) -> str | tuple[Any, ...]:
    """Return what pickle keeps of an object: a name, or make, arguments, state, items and pairs.

    A name tells nothing of an object of the user's, so its attributes take the place.
    """
    reduced = value.__reduce_ex__(4)
    if isinstance(reduced, str):
        return (type(value), (), object.__getstate__(value), [], {}) if is_of_user else reduced
    make, arguments, state, items, pairs, *_ = (*reduced, None, None, None)
    return make, arguments, state, list(items or ()), dict(pairs or ())


def partial_facts(value: functools.partial[Any]) -> list[Any]:
    """Return what a partial application holds."""
    return [value.func, value.args, value.keywords, *([vars(value)] if vars(value) else [])]


def is_importable(found: Any, module: str, name: str) -> bool:
    """Return whether a name in an imported module leads to the object."""
    value: Any = sys.modules.get(module)
    for part in name.split("."):
        value = getattr(value, part, None)
    return value is found
