"""Libraries that only some ways of reading need, imported when they are asked for."""

from __future__ import annotations

import importlib
from typing import Any

from outputs._errors import MissingDependencyError


def load(module: str, extra: str, purpose: str) -> Any:
    """Imports a module of an optional dependency.

    Args:
        module: Its full name, for example ``"scipy.sparse.linalg"``.
        extra: The extra of this distribution that installs it.
        purpose: What needs it, as the subject of a sentence.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{purpose} needs {module.partition('.')[0]}: pip install 'autodiff-jobs[{extra}]'."
        ) from error
