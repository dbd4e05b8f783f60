"""Create the objects that the configuration describes by Hydra's conventions.

`hydra.utils.instantiate` is not used: what it returns for ``_partial_`` and which targets it allows
differ between the supported releases, and it cannot import from files.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from jobs.errors import ConfigurationError, JobError
from jobs.functions.importing import import_target
from jobs.functions.tracebacks import error_with_frames, frames_of_user, one_line

TARGET, _PARTIAL, _ARGUMENTS = "_target_", "_partial_", "_args_"


def applied(
    option: str, target: Callable[..., Any], keywords: Mapping[str, Any], *, call: bool
) -> Any:
    """Call something with keyword arguments, or bind them to it.

    Args:
        option: The option that holds target and arguments, for messages.
        target: The callable.
        keywords: The arguments. Mappings with ``_target_`` in them, at any depth, are replaced by
            the objects that they describe first.
        call: Whether to call the target; otherwise the arguments are bound to it.

    Raises:
        JobError: An argument cannot be created, or the call fails.
    """
    made = {str(name): instantiated(option, value) for name, value in keywords.items()}
    if not call:
        return functools.partial(target, **made) if made else target
    return _called(option, functools.partial(target, **made))


def instantiated(option: str, node: Any) -> Any:
    """Replace mappings with ``_target_``, at any depth, by the objects that they describe.

    Args:
        option: The option that holds the mappings, for messages.
        node: Mappings, lists and values. ``_target_`` is a dotted path as in Hydra, or a path with
            a colon or a file as in ``function.target``; ``_partial_: true`` binds the arguments
            instead of calling; ``_args_`` are positional arguments.

    Raises:
        JobError: There is no such target, or it cannot be called with these arguments.
    """
    if isinstance(node, list):
        return [instantiated(option, each) for each in node]
    if not isinstance(node, Mapping):
        return node
    if TARGET not in node:
        return {key: instantiated(option, value) for key, value in node.items()}
    target = _target(option, node[TARGET])
    if not callable(target):
        raise ConfigurationError(
            f"{option}: {node[TARGET]} is of type {type(target).__name__} and cannot be called"
        )
    arguments = [instantiated(option, each) for each in node.get(_ARGUMENTS, [])]
    keywords = {
        str(key): instantiated(option, value)
        for key, value in node.items()
        if key not in (TARGET, _PARTIAL, _ARGUMENTS)
    }
    bound = functools.partial(target, *arguments, **keywords)
    return bound if node.get(_PARTIAL, False) else _called(option, bound)


def _target(option: str, path: Any) -> Any:
    if not isinstance(path, str) or not path:
        raise ConfigurationError(f"{option}: {TARGET}={path}: valid is an import path")
    if ":" in path:
        return import_target(option, path)
    # The last part of a dotted path is the name; the class of a method belongs to the module part.
    module, _, name = path.rpartition(".")
    return import_target(option, f"{module}:{name}")


def _called(option: str, call: functools.partial[Any]) -> Any:
    try:
        return call()
    except JobError:
        raise
    # The user's code may raise anything, SystemExit included.
    except (Exception, SystemExit) as error:
        if frames_of_user(error):
            raise JobError(
                f"{option}: calling it failed with {error_with_frames(error)}"
            ) from error
        raise ConfigurationError(f"{option}: {one_line(error)}") from error
