"""Hash a module by what it computes, and read from its syntax tree what it imports."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

_SOURCE_SUFFIXES = (".py", ".pyw")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_IMPORTERS = ("import_module", "__import__")
# The prefix u of a string, comments about types, and whether a name is read or written, which
# its place says as well.
_MEANINGLESS = ("kind", "type_comment", "type_ignores", "ctx")
_END = object()


@dataclass(frozen=True)
class ModuleDigest:
    """What is known of a module's file.

    Attributes:
        sha256: The hash of its syntax tree; of its bytes if it is compiled.
        imports: The names that it imports anywhere, and that may be modules, in order.
        computed: The lines that import modules whose names it computes.
    """

    sha256: str
    imports: tuple[str, ...]
    computed: tuple[int, ...] = ()


def module_digest(name: str, spec: ModuleSpec) -> ModuleDigest | None:
    """Read and hash the file of a module; return None if it has none.

    Comments, blank lines, docstrings and the place of the file make no difference.

    Args:
        name: The full name of the module, from which relative imports start.
        spec: Where it is.
    """
    content = _content(spec)
    if content is None:
        return None
    tree = _tree(spec, content)
    if tree is None:
        return ModuleDigest(hashlib.sha256(content).hexdigest(), ())
    digest = hashlib.sha256()
    for part in _parts(tree):
        digest.update(part.encode(errors="surrogatepass"))
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    imports = tuple(sorted({*_imports(tree, package)} - {""}))
    computed = (node.lineno for node in _import_calls(tree) if not _constant_name(node))
    return ModuleDigest(digest.hexdigest(), imports, tuple(sorted({*computed})))


def _content(spec: ModuleSpec) -> bytes | None:
    loader: Any = spec.loader
    if not spec.has_location or spec.origin is None:
        return None
    # A module may be in an archive, which its loader can read.
    with contextlib.suppress(OSError, AttributeError):
        return loader.get_data(spec.origin)
    with contextlib.suppress(OSError):
        return Path(spec.origin).read_bytes()
    return None


def _tree(spec: ModuleSpec, content: bytes) -> ast.Module | None:
    if not str(spec.origin).endswith(_SOURCE_SUFFIXES):
        return None
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _parts(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a syntax tree, without positions, docstrings and empty fields.

    `ast.dump` is not used: whether it writes empty fields depends on the version of Python.
    """
    pending: list[tuple[str, Any]] = [("", tree)]
    while pending:
        label, item = pending.pop()
        if item is _END:
            yield label
        elif isinstance(item, ast.AST):
            yield f"{label}{type(item).__name__}("
            pending.append((")", _END))
            pending += [(f"{name}=", value) for name, value in reversed(_fields(item))]
        elif isinstance(item, list):
            yield f"{label}["
            pending.append(("]", _END))
            pending += [("", each) for each in reversed(item)]
        else:
            yield f"{label}{item!r},"


def _fields(node: ast.AST) -> list[tuple[str, Any]]:
    fields = dict(ast.iter_fields(node))
    if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = fields["body"][1:]
    if isinstance(node, ast.JoinedStr):  # Python 3.12 ends format specifications with ""
        fields["values"] = [part for part in node.values if getattr(part, "value", 0) != ""]
    return [
        (name, value)
        for name, value in fields.items()
        if name not in _MEANINGLESS and value is not None and value != []
    ]


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if base)
    for call in _import_calls(tree):
        yield _absolute(_constant_name(call), package)


def _import_calls(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _called_name(node.func) in _IMPORTERS and node.args:
            yield node


def _constant_name(call: ast.Call) -> str:
    """Return the name that a call imports; empty if it is computed."""
    text = call.args[0]
    return text.value if isinstance(text, ast.Constant) and isinstance(text.value, str) else ""


def _called_name(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def _absolute(name: str, package: str) -> str:
    try:
        return importlib.util.resolve_name(name, package)
    except (ImportError, ValueError):
        return ""
