"""Reduce tracebacks to the frames in the user's own files."""

from __future__ import annotations

import os
import site
import sysconfig
import traceback
from pathlib import Path

import torch

import autodiff_core
import jobs
import outputs

_OURS = tuple(
    str(Path(file).parent) + os.sep
    for file in (jobs.__file__, torch.__file__, autodiff_core.__file__, outputs.__file__)
    if file
)
_INSTALLED = tuple(
    str(Path(folder)) + os.sep
    for folder in (*site.getsitepackages(), sysconfig.get_paths()["stdlib"])
)


def frames_of_user(error: BaseException) -> list[traceback.FrameSummary]:
    """Return the frames outside of this program and of torch, outermost first.

    Frames of other installed packages and of the standard library are left out, unless there are
    no others: the function itself may come from such a package.
    """
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if is_of_user(frame.filename)
    ]
    own = [frame for frame in frames if not frame.filename.startswith(_INSTALLED)]
    return own or frames


def is_of_user(filename: str) -> bool:
    """Return whether a file is neither of this program nor of torch."""
    return not filename.startswith(_OURS) and Path(filename).exists()


def one_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type if the text is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def error_with_frames(error: BaseException) -> str:
    """Return an error as Python prints it, reduced to the user's frames; several lines."""
    lines = [f"{type(error).__name__}: {one_line(error)}"]
    for frame in frames_of_user(error):
        lines.append(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}')
        lines.append(f"    {frame.line}")
    return "\n".join(lines)
