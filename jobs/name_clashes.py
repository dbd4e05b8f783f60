"""Notice modules of the user that hide packages which this program needs."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from importlib.machinery import ModuleSpec, PathFinder

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OWN = ("outputs", "autodiff_core")
_NEEDED = ("torch", "hydra", "omegaconf", "h5py", "numpy", "rich", "safetensors", "yaml")


def require_own_packages() -> None:
    """Check that no module of the user has the name of a package that this program needs.

    Raises:
        SystemExit: There is one, and the program was started by ``python -m``; with one message.
        ImportError: There is one beside or before this program's on the path.
    """
    is_command = sys.argv[:1] == ["-m"]
    hiding = _hiding_own() or (_hiding_needed() if is_command else None)
    if hiding is None:
        return
    name, place = hiding
    problem = f"{place} hides the package {name} that this program needs"
    if not is_command:
        raise ImportError(f"{problem}; rename it, or take its directory from sys.path", name=name)
    found = re.search(r" -\w*m ?jobs\.(\w+)", " ".join(sys.orig_argv))
    instead = f"autodiff-jobs {found[1]}" if found and found[1] != "run" else "autodiff-jobs"
    sys.exit(
        f"error: {problem}, because python -m searches the current directory first; use the "
        f"console script, {instead}, which does not, or rename it"
    )


def hint_about_own(module: str | None) -> str:
    """Return the end of a message about an import that failed, if it meets this program's packages.

    Args:
        module: The module that was not found, or lacks a name; None if not known.
    """
    name = (module or "").partition(".")[0]
    if name not in ("jobs", *_OWN):
        return ""
    return (
        f"; {name} is a package of this program, and a process can only have one of this name: "
        "rename yours"
    )


def _hiding_own() -> tuple[str, str] | None:
    for name in _OWN:
        place = _place(importlib.util.find_spec(name))
        if place is not None and os.path.dirname(place) != _ROOT:
            return name, place
    return None


def _hiding_needed() -> tuple[str, str] | None:
    """Return a module in the current directory that hides an installed one."""
    for name in _NEEDED:
        here = _place(PathFinder.find_spec(name, sys.path[:1]))
        installed = _place(PathFinder.find_spec(name, sys.path[1:]))
        if here is not None and installed not in (None, here):
            return name, here
    return None


def _place(spec: ModuleSpec | None) -> str | None:
    """Return the directory of a package or the file of a module; None for neither.

    A directory without ``__init__.py`` is neither: it hides nothing.
    """
    if spec is None or spec.origin is None:
        return None
    is_package = spec.submodule_search_locations is not None
    place = os.path.dirname(spec.origin) if is_package else spec.origin
    return os.path.abspath(place)
