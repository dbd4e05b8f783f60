"""Find and hash the source of everything of the user's project that a function may call.

The modules are followed through their imports, also those inside functions, and through the objects
that they hold. Modules of the standard library, of installed packages and of this program are not
followed; an editable installation is not an installed package.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import inspect
import sys
import sysconfig
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from torch.nn import Module

import autodiff_core
import outputs
from jobs.functions.importing import name_of_file
from jobs.functions.module_digest import ModuleDigest, module_digest
from jobs.functions.tracebacks import LIBRARIES

_OURS = (
    Path(__file__).parents[1],
    *(Path(str(each.__file__)).parent for each in (autodiff_core, outputs)),
)
_STANDARD = tuple(Path(sysconfig.get_path(each)) for each in ("stdlib", "platstdlib"))
# A process keeps the code that it has imported: a file that is edited meanwhile changes the job of
# the next process, not of this one.
_imported: weakref.WeakKeyDictionary[ModuleType, tuple[ModuleSpec, ModuleDigest]] = (
    weakref.WeakKeyDictionary()
)


@dataclass(frozen=True)
class SourceCode:
    """The source on which the values of a function depend.

    Attributes:
        digest: The SHA-256 of all modules with their names.
        modules: The names of the modules of the user's project, in order.
        packages: The names under which they import installed packages, in order.
        computed: The lines of them that import modules by computed names, as ``file, line n``.
    """

    digest: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    computed: tuple[str, ...] = ()

    @property
    def left_out(self) -> str:
        """What the digest may lack, in words; empty if nothing is known."""
        if not self.computed:
            return ""
        places = "; ".join(self.computed)
        return f"modules that are imported by computed names ({places}) and held by no variable"


def source_code(starts: Iterable[ModuleType], parts: Iterable[ModuleType] = ()) -> SourceCode:
    """Hash the modules of the user's project that can be reached from some modules.

    Comments, blank lines, docstrings and the directory of the project make no difference.

    Args:
        starts: The modules that the options name; they count wherever they are installed.
        parts: Further modules, which count if they are of the project.
    """
    search = _Search()
    for module in starts:
        search.start(module)
    for module in parts:
        search.follow([module.__name__])
    return search.found()


def modules_of(function: Any) -> tuple[ModuleType, ...]:
    """Return the modules that define a function, what it wraps or binds, and its parts.

    Args:
        function: A function, a bound method, a partial application, an instance with ``__call__``
            or a torch.nn.Module with its submodules.
    """
    found: dict[str, ModuleType] = {}
    pending = [function]
    while pending:
        each = pending.pop()
        if isinstance(each, functools.partial):
            pending += [each.func, *each.args, *each.keywords.values()]
        elif isinstance(each, Module):
            pending += [type(part) for part in each.modules()]
        elif isinstance(each, list | tuple):
            pending += each
        elif isinstance(each, Mapping):
            pending += each.values()
        else:
            names = [_module_name(each)]
            with contextlib.suppress(ValueError):  # it wraps itself
                names.append(_module_name(inspect.unwrap(each)))
            found |= {name: sys.modules[name] for name in names if name in sys.modules}
    return tuple(found.values())


def is_of_project(name: str) -> bool:
    """Return whether a module is of the user's project: neither installed, nor of this program.

    Args:
        name: The name of the module; one that has no place, made while Python runs, is the user's.
    """
    spec = _spec(name)
    return spec is None or _Search()._is_of_project(name, spec)


def import_of_project(name: str) -> None:
    """Import a module if it is of the user's project; one that cannot be imported is left out."""
    # It is code of the user, which may raise anything.
    with contextlib.suppress(Exception):
        if _spec(name) is not None and is_of_project(name):
            importlib.import_module(name)


def project_modules(modules: Iterable[ModuleType]) -> tuple[ModuleType, ...]:
    """Return those of some modules that are of the user's project and have a file."""
    found = (each for each in modules if getattr(each, "__file__", None))
    return tuple(each for each in found if is_of_project(each.__name__))


class _Search:
    """A search for the modules of a project."""

    def __init__(self) -> None:
        self._digests: dict[str, str] = {}
        self._packages: set[str] = set()
        self._computed: dict[str, None] = {}
        self._seen: set[str] = set()
        # Folders of `pip install --target` are installations under any name.
        folders = {Path(each).absolute() for each in sys.path if each}
        self._installed = {each for each in folders if any(each.glob("*.dist-info"))}

    def found(self) -> SourceCode:
        text = repr(sorted(self._digests.items()))
        return SourceCode(
            hashlib.sha256(text.encode()).hexdigest(),
            tuple(sorted(self._digests)),
            tuple(sorted(self._packages)),
            tuple(self._computed),
        )

    def start(self, module: ModuleType) -> None:
        """Add a module that counts wherever it is, and what it reaches in the project."""
        self.follow([module.__name__])
        spec = _spec(module.__name__)
        if spec is not None and module.__name__ not in self._digests:
            self._add(module.__name__, spec)

    def follow(self, names: Iterable[str]) -> None:
        """Add modules, and what they import, as far as they are of the project."""
        pending = [*names]
        while pending:
            name = pending.pop()
            if not name or name in self._seen:
                continue
            self._seen.add(name)
            spec = _spec(name)
            if spec is not None and self._is_of_project(name, spec):
                pending.append(name.rpartition(".")[0])
                pending += self._add(name, spec)

    def _add(self, name: str, spec: ModuleSpec) -> Iterator[str]:
        """Add a module and return the names of what it may import."""
        module = _in_memory(name)
        known, digest = _imported.get(module, (None, None)) if module is not None else (None, None)
        # Another spec: the module was loaded again.
        found = digest if known is spec else module_digest(name, spec)
        if found is None:  # a package without __init__.py
            return iter(())
        if module is not None:
            _imported[module] = spec, found
        self._digests[_name_without_place(name, spec)] = found.sha256
        places = (f"{Path(str(spec.origin)).name}, line {line}" for line in found.computed)
        self._computed |= dict.fromkeys(places)
        return iter((*found.imports, *_referenced(module)))

    def _is_of_project(self, name: str, spec: ModuleSpec) -> bool:
        """Return whether a module is of the project; remember the package of an installed one."""
        places = [spec.origin] if spec.has_location else [*(spec.submodule_search_locations or ())]
        files = [Path(place).absolute() for place in places if place]
        if any(LIBRARIES & {*file.parts} or _is_below(file, self._installed) for file in files):
            if not any(_is_below(file, _OURS) for file in files):
                self._packages.add(name.partition(".")[0])
            return False
        return any(not _is_below(file, (*_OURS, *_STANDARD)) for file in files)


def _is_below(file: Path, folders: Iterable[Path]) -> bool:
    return any(folder in (file, *file.parents) for folder in folders)


def _spec(name: str) -> ModuleSpec | None:
    """Return where a module is, without importing it or its parents; None if it is nowhere."""
    module = _in_memory(name)
    facts = {} if module is None else vars(module)
    if facts.get("__spec__") is not None:
        return facts["__spec__"]
    if facts.get("__file__"):  # __main__ of a script
        return spec_from_file_location(name, facts["__file__"])
    parent, path = name.rpartition(".")[0], None
    if parent:
        above = _spec(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        path = [*above.submodule_search_locations]
    for finder in sys.meta_path:
        # Finders are code of others, of editable installations for example.
        with contextlib.suppress(Exception):
            if (spec := finder.find_spec(name, path)) is not None:
                return spec
    return None


def _in_memory(name: str) -> ModuleType | None:
    """Return an imported module; None also for an object that stands in for one."""
    module = sys.modules.get(name)
    return module if isinstance(module, ModuleType) else None


def _referenced(module: ModuleType | None) -> Iterator[str]:
    """Yield the names of the modules whose objects a module holds, however it imported them."""
    for value in list(vars(module).values()) if module is not None else ():
        name = value.__name__ if isinstance(value, ModuleType) else _module_name(value)
        if name in sys.modules and name != "__main__":
            yield name


def _module_name(value: Any) -> str:
    # An object of the user may answer any attribute with an error.
    with contextlib.suppress(Exception):
        return str(value.__module__)
    return ""


def _name_without_place(name: str, spec: ModuleSpec) -> str:
    """Return the name of a module; of one that was loaded from a file, that of the file."""
    file = Path(str(spec.origin))
    return file.stem if name == name_of_file(file) else name
