"""What the code of a function refers to, read from its bytecode."""

from __future__ import annotations

import dis
import re
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

_GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_ATTRIBUTE = {"LOAD_ATTR", "LOAD_METHOD"}
# What looks up global names that are texts.
_BY_TEXT = {"globals", "eval", "exec", "vars", "__globals__", "f_globals"}
_WORD = re.compile(r"[^\W\d]\w*")
_NEW_LOCALS = 0x2  # inspect.CO_NEWLOCALS: not the body of a class
_HAS_DOCSTRING = 0x4000000  # inspect.CO_HAS_DOCSTRING of Python 3.14


def constants_of(code: CodeType) -> tuple[Any, ...]:
    """Return the constants of a code object, without the text of its docstring."""
    found = code.co_consts
    if sys.version_info >= (3, 14):
        has_docstring = bool(code.co_flags & _HAS_DOCSTRING)
    else:
        # The first constant of a function without one is None; comprehensions have no docstring.
        is_function = code.co_flags & _NEW_LOCALS and not code.co_name.startswith("<")
        has_docstring = bool(is_function and found and isinstance(found[0], str))
    return (None, *found[1:]) if has_docstring else found


def all_code(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and those of the functions and classes that are defined inside."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from all_code(constant)


def references_of(code: CodeType) -> list[tuple[str, ...]]:
    """Return the global names that code reads, each with the attributes that follow it.

    Returns:
        Paths such as ``("mymodule", "SCALE")``, each once, in the order of the code.
    """
    found: dict[tuple[str, ...], None] = {}
    for each in all_code(code):
        path: tuple[str, ...] = ()
        for step in dis.get_instructions(each):
            if step.opname == "EXTENDED_ARG":
                continue
            if path and step.opname in _ATTRIBUTE:
                path = (*path, str(step.argval))
                continue
            if path:
                found[path] = None
            path = (str(step.argval),) if step.opname in _GLOBAL else ()
    return list(found)


def imports_of(code: CodeType, package: str) -> list[str]:
    """Return the names of modules that code imports when it runs.

    Args:
        code: The code.
        package: The package of its module, in which relative names start.
    """
    names = [
        str(step.argval)
        for each in all_code(code)
        for step in dis.get_instructions(each)
        if step.opname == "IMPORT_NAME"
    ]
    # The level of a relative import is a constant elsewhere in the code.
    inside = [".".join(filter(None, (package, each))) for each in names if package]
    return [each for each in (*names, *inside) if each]


def texts_of(code: CodeType) -> list[str]:
    """Return the texts in code, without docstrings and without the code inside it."""
    return [each for each in constants_of(code) if isinstance(each, str)]


def names_of(code: CodeType) -> set[str]:
    """Return the names that code, without the code inside it, has for attributes and globals.

    Texts count as well, since `getattr` takes them.
    """
    return {*code.co_names, *texts_of(code)}


def names_in_text(code: CodeType) -> set[str]:
    """Return the words in the texts of code that looks up names by text; otherwise none."""
    codes = list(all_code(code))
    if not any(_BY_TEXT.intersection(each.co_names) for each in codes):
        return set()
    return {word for each in codes for text in texts_of(each) for word in _WORD.findall(text)}


def resolved(
    function: FunctionType, path: tuple[str, ...], is_followed: Callable[[ModuleType], bool]
) -> tuple[str, Any, bool]:
    """Look up a path of global name and attributes, through modules only.

    Args:
        function: The function whose globals count.
        path: The parts of the path.
        is_followed: Tells whether the attributes of a module are looked up.

    Returns:
        The part of the path that was looked up, its value, and whether there is one.
    """
    names = function.__globals__
    if path[0] not in names:
        return path[0], None, False
    value, used = names[path[0]], 1
    for name in path[1:]:
        if not (isinstance(value, ModuleType) and is_followed(value)):
            break
        if not hasattr(value, name):
            break
        value, used = getattr(value, name), used + 1
    return ".".join(path[:used]), value, True
