"""The texts that name the user's function: for reports, and for the fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.configuration.schema import LiveFunction, PythonFunction
from jobs.functions.importing import target_without_place
from jobs.functions.instantiation import TARGET


def target_text(config: PythonFunction) -> str:
    """Return the import path of a function."""
    if isinstance(config.target, Mapping):
        return str(config.target.get(TARGET, dict(config.target)))
    return str(config.target)


def reference(config: PythonFunction) -> str:
    """Return the import path and the arguments as they were given, for reports."""
    text = ", ".join(f"{key}={json.dumps(value)}" for key, value in _arguments(config).items())
    return f"{target_text(config)}({text})" if text else target_text(config)


def identity(config: PythonFunction) -> str:
    """Return the import path and the arguments, for the fingerprint.

    The order of the arguments and the directories of files make no difference. Of an argument that
    names a file the content counts.
    """
    if isinstance(config, LiveFunction):
        return f"{config.target} {config.identity}"
    arguments = _without_places(_arguments(config))
    text = json.dumps(arguments, sort_keys=True)
    return f"{target_without_place(target_text(config))}({text})"


def targets_of(config: PythonFunction) -> Iterator[str]:
    """Yield all import paths in the options of a function, at any depth; first its own."""
    if isinstance(config, LiveFunction):
        return
    if isinstance(config.target, Mapping):
        yield from _nested_targets(config.target)
    else:
        yield str(config.target)
    yield from _nested_targets(config.keywords)


def content_digest(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _arguments(config: PythonFunction) -> dict[str, Any]:
    if isinstance(config.target, Mapping):
        return {k: v for k, v in config.target.items() if k != TARGET}
    return {**config.keywords, **({"factory": True} if config.factory else {})}


def _nested_targets(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for each in node:
            yield from _nested_targets(each)
    elif isinstance(node, Mapping):
        if isinstance(node.get(TARGET), str):
            yield node[TARGET]
        for each in node.values():
            yield from _nested_targets(each)


def _without_places(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_places(each) for each in node]
    if isinstance(node, Mapping):
        return {
            str(key): target_without_place(value)
            if key == TARGET and isinstance(value, str)
            else _without_places(value)
            for key, value in node.items()
        }
    if isinstance(node, str) and node and "\0" not in node:
        return _content_of_file(node)
    return node


def _content_of_file(text: str) -> str:
    """Return name and hash of the file that a text names; the text if there is no such file."""
    file = Path(text)
    try:
        return f"{file.name} {content_digest(file)}" if file.is_file() else text
    except OSError:  # a text that is too long for a name, or a file that may not be read
        return text
