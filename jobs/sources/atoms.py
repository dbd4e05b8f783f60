"""Read atoms through ASE: extxyz, CIF, POSCAR, ASE's databases and its other formats."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jobs.configuration.schema import AtomsSource, PointsConfig
from jobs.errors import ConfigurationError, text_of, unknown
from jobs.sources.files import require_file
from jobs.sources.separate_points import gathered
from jobs.sources.source_array import SourceArray

UNITS = {"positions": "angstrom", "cell": "angstrom", "masses": "u"}
"""The units in which ASE has what it reads, by name; the others are numbers without a unit."""

_INDEX = re.compile(r"-?\d+")
_FRAMES = re.compile(r"(-?\d+)?:(-?\d+)?(:\d+)?")


def read_atoms(
    option: str,
    config: AtomsSource,
    names: Sequence[str],
    required: Sequence[str],
    points: PointsConfig,
) -> dict[str, SourceArray]:
    """Read what a function takes of the atoms: positions, numbers, cell, pbc, masses and others.

    Args:
        option: The option that names the source, for messages.
        config: The source.
        names: The arguments that the function takes.
        required: Those that it needs.
        points: The option `points`: of many points the arrays are of all frames.

    Returns:
        Argument to array, of those that the atoms have.

    Raises:
        ConfigurationError: ASE is not installed, the file cannot be read, there is no such frame,
            or the atoms lack what the function needs.
    """
    if config.slice is not None:
        raise ConfigurationError(
            f"{option}.slice={config.slice}: atoms have arrays of several shapes; "
            f"{option}.index={config.slice} selects frames"
        )
    place = f"{option}.path={config.path}"
    frames = _frames(option, config, points)
    found = [_of_frame(place, frame, config.names, names, required) for frame in frames]
    if not points.are_many:
        return found[0]
    return {name: gathered(place, [each[name] for each in found]) for name in found[0]}


def _frames(option: str, config: AtomsSource, points: PointsConfig) -> list[Any]:
    """Return the frames that the options select, as objects of ASE."""
    place = f"{option}.path={config.path}"
    if points.by == "files":
        paths = sorted(glob.glob(config.path, recursive=True))
        if not paths:
            raise ConfigurationError(
                f"{place}: there is no such file; points=files takes a pattern"
            )
        return [_single(f"{option}.path={p}", _read(option, p, config.index)) for p in paths]
    frames = _read(option, config.path, config.index)
    if points.by == "offsets":
        raise ConfigurationError(
            f"{option}=atoms points=offsets: a frame is a point; valid is points=leading"
        )
    return frames if points.are_many else [_single(place, frames)]


def _single(place: str, frames: list[Any]) -> Any:
    if len(frames) > 1:
        raise ConfigurationError(
            f"{place}: there are {len(frames)} frames; inputs.index=0 chooses one, and "
            "points=leading takes all of them as points"
        )
    return frames[0]


def _read(option: str, path: str, index: str | None) -> list[Any]:
    """Read frames of a file."""
    text = ":" if index is None else index
    if not (_INDEX.fullmatch(text) or _FRAMES.fullmatch(text)):
        raise ConfigurationError(
            f"{option}.index={index}: valid are a frame, such as 0 or -1, and a range, such as 0:10"
        )
    frames = _all_frames(f"{option}.path", path)
    if _INDEX.fullmatch(text):
        number = int(text)
        chosen = [frames[number]] if -len(frames) <= number < len(frames) else []
    else:
        parts = [int(part) if part else None for part in text.split(":")]
        chosen = frames[slice(*parts)]
    if not chosen:
        raise ConfigurationError(
            f"{option}.index={index}: {path} has {len(frames)} frames, 0 to {len(frames) - 1}"
        )
    return chosen


def _all_frames(option: str, path: str) -> list[Any]:
    try:
        from ase.io import read
    except ImportError as error:
        raise ConfigurationError(
            "inputs=atoms needs ASE, which is not installed: pip install autodiff-jobs[atoms]"
        ) from error
    require_file(option, path)
    try:
        frames: Any = read(path, index=":", do_not_split_by_at_sign=True)
    # ASE's readers raise errors of many types.
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"{option}={path}: ASE cannot read this file ({_first_line(error)})"
        ) from error
    if not frames:
        raise ConfigurationError(f"{option}={path}: there are no atoms in this file")
    return list(frames)


def _first_line(error: BaseException) -> str:
    return (text_of(error).strip() or type(error).__name__).splitlines()[0]


def _of_frame(
    place: str,
    atoms: Any,
    renamed: Mapping[str, str],
    names: Sequence[str],
    required: Sequence[str],
) -> dict[str, SourceArray]:
    """Return what the arguments of a function are of one frame."""
    given = _contents(atoms)
    found = {}
    for name in dict.fromkeys((*names, *renamed)):
        wanted = renamed.get(name, name)
        if wanted in given:
            found[name] = SourceArray(given[wanted], f"{place}, {wanted}")
        elif name in renamed:
            raise unknown(f"inputs.names.{name}", wanted, given)
        elif name in required:
            raise ConfigurationError(
                f"{place}: the function needs {name}; atoms have {', '.join(given)}; "
                f"inputs.names.{name}=positions gives it one of them, and function.keywords."
                f"{name}= another value"
            )
    return found


def _contents(atoms: Any) -> dict[str, np.ndarray]:
    """Return everything of atoms that is an array of numbers, by name."""
    common = {
        "positions": atoms.get_positions(),
        "numbers": atoms.get_atomic_numbers(),
        "cell": np.asarray(atoms.cell),
        "pbc": np.asarray(atoms.pbc),
        "masses": atoms.get_masses(),
    }
    further = {**atoms.arrays, **atoms.info}
    numbers = {
        str(name): np.asarray(value)
        for name, value in further.items()
        if isinstance(value, np.ndarray | int | float) and np.asarray(value).dtype.kind in "fiub"
    }
    return {**numbers, **common}
