"""The console script ``autodiff-jobs``, which is also ``python -m autodiff_jobs``.

``python -m jobs.run`` fails where the current directory has a package `jobs` or `outputs`, because
Python searches that directory first. Importing this module makes these names those of the packages
beside it, whatever the current directory and PYTHONPATH hold; the processes that `multiprocessing`
and joblib start import it too.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_ROOT = os.path.dirname(os.path.abspath(__file__))
_PACKAGES = ("autodiff_core", "jobs", "outputs")
_COMMANDS = {
    **{name: f"jobs.{name}" for name in ("doctor", "report", "status")},
    **{
        name: f"outputs.{name}" for name in ("analyse", "export", "merge", "plot", "show", "verify")
    },
}


class _OwnPackages:
    """A finder of the packages of this program."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a package of this program is, None for any other module."""
        return PathFinder.find_spec(name, [_ROOT]) if name in _PACKAGES else None


sys.meta_path.insert(0, _OwnPackages)


def main() -> None:
    """Run a job, or the command that the first argument names, as ``python -m`` would.

    Raises:
        SystemExit: The command has ended.
    """
    # Of the processes that sweeps start, some would search the current directory first as well.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    with contextlib.suppress(OSError):
        if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
            del sys.path[0]
    if sys.argv[1:] and sys.argv[1] in _COMMANDS:
        del sys.argv[0]
        runpy.run_module(_COMMANDS[sys.argv[0]], run_name="__main__", alter_sys=True)
        return
    from jobs.run import program

    program()


if __name__ == "__main__":
    main()
