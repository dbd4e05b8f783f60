"""The C++ compiler with which torch makes kernels for the CPU."""

from __future__ import annotations

import os
import shutil
import sys


def compiler_name() -> str:
    """Return the command by which torch's compiler calls it."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def compiler_path() -> str | None:
    """Return where it is installed; None if it is not."""
    return shutil.which(compiler_name())
