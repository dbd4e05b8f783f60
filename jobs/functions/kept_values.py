"""Find what a function keeps between its evaluations, and take it away for one of them.

A value that one evaluation stores and a later one uses, in a cache or as the start of an iteration,
makes a function of its inputs alone into one of its past. The objects that the user's code holds
are followed from the function: variables of its modules, closures, defaults, attributes, and what
containers among them hold. Arrays that are changed in place are not seen.
"""

from __future__ import annotations

import functools
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

from torch.nn import Module

from jobs.functions.tracebacks import is_of_project

_MAPPINGS = (OrderedDict, defaultdict)
_SEQUENCES = (list, deque)
# Data are no cache: longer containers are not looked through.
_LONGEST = 10_000


@functools.cache
def _cached() -> None:
    """Stand for what `functools.cache` and `functools.lru_cache` return."""


class KeptValues:
    """What can be reached from a function, as it is now."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Remember what the function holds."""
        self._before: list[tuple[Any, Any]] = []
        self._caches: list[Any] = []
        # With the objects themselves, so that no number is used twice.
        seen: dict[int, Any] = {}
        pending: list[Any] = [function]
        while pending:
            each = pending.pop()
            if id(each) in seen:
                continue
            seen[id(each)] = each
            # Objects of other libraries may clear a cache without telling how full it is.
            if isinstance(each, type(_cached)):
                self._caches.append(each)
            content = _content(each)
            if content is not None and len(content) <= _LONGEST:
                self._before.append((each, content))
                pending += content.values() if isinstance(content, dict) else content
            pending += _links(each)

    def is_changed(self) -> bool:
        """Return whether anything holds other objects than at the beginning."""
        return any(not _is_same(_content(holder), before) for holder, before in self._before) or (
            any(each.cache_info().currsize for each in self._caches)
        )

    @contextmanager
    def forgotten(self) -> Iterator[None]:
        """Run the body with everything as it was at the beginning, and restore what is now."""
        now = [(holder, _content(holder)) for holder, _ in self._before]
        for cache in self._caches:
            cache.cache_clear()
        try:
            for holder, before in self._before:
                _fill(holder, before)
            yield
        finally:
            for holder, content in now:
                _fill(holder, content)


def _content(value: Any) -> Any:
    """Return what an object holds, if it may hold something else later; else None."""
    if type(value) is dict:
        # Python notes in the variables of a module which warnings it has shown.
        return {k: v for k, v in value.items() if k != "__warningregistry__"}
    if type(value) in (*_MAPPINGS, *_SEQUENCES, set):
        return value.copy()
    if isinstance(value, CellType):
        try:
            return [value.cell_contents]
        except ValueError:  # it is empty
            return []
    if isinstance(value, type) and _is_of_project(value.__module__):
        return {k: v for k, v in vars(value).items() if not k.startswith("__")}
    return None


def _fill(holder: Any, content: Any) -> None:
    if _is_same(_content(holder), content):
        return
    if isinstance(holder, CellType):
        if content:
            holder.cell_contents = content[0]
        else:
            del holder.cell_contents
    elif isinstance(holder, _SEQUENCES):
        holder.clear()
        holder.extend(content)
    elif isinstance(holder, set):
        holder.clear()
        holder.update(content)
    elif isinstance(holder, type):
        for name in _content(holder).keys() - content.keys():
            delattr(holder, name)
        for name, value in content.items():
            if vars(holder).get(name) is not value:
                setattr(holder, name, value)
    else:
        for key in [*holder]:
            if key not in content:
                del holder[key]
        holder.update(content)


def _is_same(one: Any, other: Any) -> bool:
    if len(one) != len(other):
        return False
    if isinstance(one, dict):
        return all(key in other and other[key] is value for key, value in one.items())
    if isinstance(one, set):
        return one == other
    return all(a is b for a, b in zip(one, other, strict=True))


def _links(value: Any) -> list[Any]:
    """Return the objects that an object of the user's refers to for good."""
    if isinstance(value, tuple):
        # Past the methods of subclasses, which may raise anything (e3nn's irreps have no length).
        return [*tuple.__iter__(value)]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, FunctionType):
        if not _is_of_project(value.__module__):
            return [value.__closure__]
        parts = (value.__closure__, value.__defaults__, value.__kwdefaults__)
        return [*parts, vars(value), value.__globals__]
    if isinstance(value, ModuleType):
        return [vars(value)] if _is_of_project(value.__name__) else []
    attributes = _attributes(value)
    if "__wrapped__" in attributes and not isinstance(value, Module):
        return [attributes["__wrapped__"]]
    if isinstance(value, type):
        is_own = _is_of_project(value.__module__)
        return [*value.__bases__, *vars(value).values()] if is_own else []
    if isinstance(value, Module) or _is_of_project(type(value).__module__):
        return [attributes, type(value)]
    return []


def _attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, without its own methods, which may raise anything."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_of_project(name: Any) -> bool:
    file = getattr(sys.modules.get(str(name)), "__file__", None)
    return file is not None and is_of_project(str(file))
