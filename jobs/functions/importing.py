"""Import objects that the user names by import path or by file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from jobs.errors import ConfigurationError, JobError, did_you_mean, text_of
from jobs.functions.tracebacks import error_with_frames
from jobs.name_clashes import hint_about_own
from jobs.sources.files import require_file


def import_target(option: str, target: str) -> Any:
    """Import an object by ``package.module:name`` or ``./file.py:name``.

    The directory from which the program was started, and the directory of a file, are searched
    after all others: a directory of the user must never hide a package of this program.

    Args:
        option: The option that holds the path, for messages.
        target: The import path.

    Raises:
        JobError: There is no such module, file or name, or the import fails.
    """
    found: Any = import_module(option, target)
    place, _, name = target.rpartition(":")
    for part in name.split("."):
        if not hasattr(found, part):
            public = [each for each in dir(found) if not each.startswith("_")]
            file = getattr(import_module(option, target), "__file__", None)
            raise ConfigurationError(
                f"{option}={target}: there is no {name} in {file or place}"
                + did_you_mean(part, public)
            )
        found = getattr(found, part)
    return found


def import_module(option: str, target: str) -> ModuleType:
    """Import the module of an import path, unless it is imported already.

    Raises:
        JobError: There is no such module or file, or the import fails.
    """
    place, _, name = target.rpartition(":")
    if target.endswith(".pt2"):
        raise ConfigurationError(
            f"{option}={target}: a program of torch.export is loaded by function.target="
            f"torch.export:load function.factory=true function.keywords.f={target}"
        )
    if not (place and name):
        raise ConfigurationError(
            f"{option}={target}: valid is an import path such as mypackage.module:name, or a file "
            "such as ./energy.py:name"
        )
    if "/" in place and not _is_file(place):
        raise ConfigurationError(
            f"{option}={target}: valid is a file that ends in .py, or an import path with dots"
        )
    _also_import_from(Path.cwd())
    # The import system would not notice a file that was written a moment ago.
    importlib.invalidate_caches()
    try:
        with _settings_of_torch(option, target):
            return _of_file(option, target) if _is_file(place) else importlib.import_module(place)
    except JobError:
        raise
    except ModuleNotFoundError as error:
        if _is_file(place) or not _is_within(place, error.name):
            # A package may raise the error with a text alone.
            missing = f"{error.name}, which is not installed" if error.name else text_of(error)
            hint = hint_about_own(error.name) if error.name else ""
            raise JobError(f"{option}={target}: {place} itself imports {missing}{hint}") from error
        raise ConfigurationError(
            f"{option}={target}: there is no module {error.name}; looked in {os.getcwd()} and "
            "among the installed packages" + (hint_about_own(error.name) or _file_hint(place))
        ) from error
    # Importing the user's module may raise anything; a script raises SystemExit.
    except (Exception, SystemExit) as error:
        raise JobError(
            f"{option}={target}: importing {place} failed with {error_with_frames(error)}"
            + hint_about_own(error.name if isinstance(error, ImportError) else None)
        ) from error


def imported(names: Iterable[str]) -> tuple[ModuleType, ...]:
    """Return those modules of some names that are imported."""
    found = (sys.modules.get(name) for name in names)
    return tuple(module for module in found if isinstance(module, ModuleType))


@contextmanager
def _settings_of_torch(option: str, target: str) -> Iterator[None]:
    """Keep what an import must not change for the whole program: gradients and the device.

    Raises:
        ConfigurationError: The import sets another default device.
    """
    known, device = {*sys.modules}, torch.get_default_device()
    with torch.set_grad_enabled(torch.is_grad_enabled()):
        yield
    now = torch.get_default_device()
    if now != device:
        torch.set_default_device(device)
        # The next import must run the module again, and be refused again.
        for name in {*sys.modules} - known:
            del sys.modules[name]
        raise ConfigurationError(
            f"{option}={target}: importing it sets torch's default device to {now}; the option "
            "devices= chooses where a job computes, and the default must stay as it is"
        )


def name_of_file(file: Path) -> str:
    """Return the name under which a file is imported.

    It is unique: the file must not hide an installed package of the same name.

    Args:
        file: The file, absolute.
    """
    return f"{file.stem}_{hashlib.sha256(os.fsencode(file)).hexdigest()[:8]}"


def target_without_place(target: str) -> str:
    """Return an import path that does not depend on where the user's project is.

    Args:
        target: The import path; a file counts relative to the directory in which the program was
            started, and elsewhere by its name.
    """
    place, _, name = target.rpartition(":")
    if not _is_file(place):
        return target
    file = Path(os.path.abspath(place))
    is_here = file.is_relative_to(Path.cwd())
    return f"{file.relative_to(Path.cwd()).as_posix() if is_here else file.name}:{name}"


def _of_file(option: str, target: str) -> ModuleType:
    file = Path(target.rpartition(":")[0]).absolute()
    require_file(option, target.rpartition(":")[0])
    name = name_of_file(file)
    if name in sys.modules:
        return sys.modules[name]
    _also_import_from(file.parent)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look up a module by its name while it is still being imported.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_file(place: str) -> bool:
    return place.endswith(".py")


def _is_within(module: str, missing: str | None) -> bool:
    """Return whether the missing module is the given one or a parent of it, not an import in it."""
    return missing is not None and (module + ".").startswith(missing + ".")


def _file_hint(place: str) -> str:
    file = Path(*place.split(".")).with_suffix(".py")
    beside = [each.stem for each in Path.cwd().glob("*.py")]
    return f"; there is a file {file}" if file.is_file() else did_you_mean(place, beside)


def _also_import_from(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
