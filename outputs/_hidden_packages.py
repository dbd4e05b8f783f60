"""Refuse, when it is imported, modules of the user that hide packages which a command needs.

``python -m outputs.show`` searches the current directory first. This module comes before all
others, which would end in a traceback.
"""

from __future__ import annotations

import re
import sys
from importlib.machinery import PathFinder

_NEEDED = ("numpy", "h5py", "rich")


def require_visible(needed: tuple[str, ...] = _NEEDED) -> None:
    """Check that the current directory hides none of some packages.

    Args:
        needed: Their names.

    Raises:
        SystemExit: It hides one, and the program was started by ``python -m``.
    """
    if sys.argv[:1] != ["-m"]:
        return
    for name in needed:
        here = PathFinder.find_spec(name, sys.path[:1])
        is_elsewhere = PathFinder.find_spec(name, sys.path[1:]) is not None
        # A directory without `__init__.py` hides nothing.
        if here is None or here.origin is None or not is_elsewhere:
            continue
        command = re.search(r" -\w*m ?outputs\.(\w+)", " ".join(sys.orig_argv))
        sys.exit(
            f"error: {here.origin} hides the package {name} that this program needs, because "
            "python -m searches the current directory first; use the console script, "
            f"autodiff-jobs{f' {command[1]}' if command else ''}, which does not, or rename it"
        )


require_visible()
