"""Reduce tracebacks to the frames in the user's own files."""

from __future__ import annotations

import os
import site
import sysconfig
import traceback
from collections.abc import Iterator
from itertools import groupby, takewhile
from pathlib import Path
from types import FrameType

import torch

import autodiff_core
import outputs
from jobs.errors import text_of

_PROGRAM = tuple(
    str(folder) + os.sep
    for folder in (
        Path(__file__).parents[1],
        *(Path(str(each.__file__)).parent for each in (autodiff_core, outputs)),
    )
)
_OURS = (*_PROGRAM, str(Path(str(torch.__file__)).parent) + os.sep)
# The frames shown at each end of a long traceback.
_FRAMES = 5
# Packages are also installed for a user alone, or beside another interpreter.
LIBRARIES = {"site-packages", "dist-packages"}
_STANDARD = str(Path(sysconfig.get_paths()["stdlib"])) + os.sep
_INSTALLED = (*(str(Path(folder)) + os.sep for folder in site.getsitepackages()), _STANDARD)


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


def line_of_user(frame: FrameType | None, watcher: str) -> str:
    """Return file and line of the innermost frame of the user's function; empty if there is none.

    As in `frames_of_user`, other installed packages count where nothing else is. Beyond the first
    frame of this program is what has called the job.

    Args:
        frame: The innermost frame.
        watcher: The file of this program that runs beneath the function.
    """
    lines = (each for each in _lines_from(frame) if each[0] != watcher)
    inner = takewhile(lambda each: not each[0].startswith(_PROGRAM), lines)
    foreign = [each for each in inner if not (each[0].startswith(_OURS) or _is_standard(each[0]))]
    own = [each for each in foreign if not each[0].startswith(_INSTALLED)]
    return "{}:{}".format(*(own or foreign)[0]) if foreign else ""


def _is_standard(filename: str) -> bool:
    return filename.startswith(_STANDARD) and not LIBRARIES & {*filename.split(os.sep)}


def _lines_from(frame: FrameType | None) -> Iterator[tuple[str, int]]:
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back


def is_of_user(filename: str) -> bool:
    """Return whether a file is neither of this program nor of torch."""
    return not filename.startswith(_OURS) and Path(filename).exists()


def is_of_project(filename: str) -> bool:
    """Return whether a file is of the user's project, and of no installed package."""
    is_installed = filename.startswith(_INSTALLED) or LIBRARIES & {*filename.split(os.sep)}
    return not is_installed and is_of_user(filename)


def one_line(error: BaseException) -> str:
    """Return an error's text, cut to one line as `headline` does, or its type if it has none."""
    return autodiff_core.headline(error) or type(error).__name__


def error_with_frames(error: BaseException) -> str:
    """Return an error with its cause and notes, reduced to one line each and the user's frames."""
    text = text_of(error).strip()
    head = type(error).__name__ + (f": {one_line(error)}" if text else "")
    shown = [
        f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n    {frame.line}'
        for frame in frames_of_user(error)
    ]
    # Functions that call themselves or one another without an end have a thousand frames.
    frames = [frame for frame, _ in groupby(shown)]
    if len(frames) > 2 * _FRAMES:
        between = f"  ... {len(frames) - 2 * _FRAMES} more ..."
        frames = [*frames[:_FRAMES], between, *frames[-_FRAMES:]]
    cause, causes = error.__cause__, []
    if cause is not None and autodiff_core.headline(cause) not in head:
        causes = [f"caused by {type(cause).__name__}: {autodiff_core.headline(cause)}"]
    return "\n".join([head, *frames, *causes, *getattr(error, "__notes__", ())])
