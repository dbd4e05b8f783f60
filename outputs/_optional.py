"""Import optional dependencies on demand."""

from __future__ import annotations

import importlib
from typing import Any

from outputs._errors import MissingDependencyError


def load(module: str, extra: str, purpose: str) -> Any:
    """Import a module of an optional dependency.

    Args:
        module: Full name of the module, for example ``"scipy.sparse.linalg"``.
        extra: The extra of this distribution that installs it.
        purpose: The operation that needs it, as the subject of a sentence.

    Returns:
        The module.

    Raises:
        MissingDependencyError: If the module is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{purpose} needs {module.partition('.')[0]}: pip install 'autodiff-jobs[{extra}]'."
        ) from error
