"""The optional libraries that sparse derivatives need, with a clear error if one is missing."""

from __future__ import annotations

import importlib


def require_extras() -> None:
    """Check that numba and scipy can be imported.

    Raises:
        ImportError: One is missing; the message names the extra that installs it.
    """
    for name in ("numba", "scipy.sparse"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ImportError(
                f"autodiff_core.sparse needs {name.partition('.')[0]}: "
                "pip install 'autodiff-jobs[sparse]'"
            ) from error
