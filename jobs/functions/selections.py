"""Find the lines of a matrix that the options `rows` and `columns` select."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.configuration.selections import is_file, ranges_of
from jobs.errors import ConfigurationError, unknown
from jobs.sources.files import require_file


@dataclass(frozen=True)
class AxisTensor:
    """One of the tensors whose elements are the lines of an axis.

    Attributes:
        name: Its name.
        shape: Its shape.
        dtype: Its dtype.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class SelectedTensor:
    """The part of a tensor that is selected.

    Attributes:
        tensor: The part; it keeps the trailing dimensions where it consists of whole entries along
            the leading one.
        position: The position of the tensor among those of the axis.
        numbers: The selected elements, int64, ascending; None for all of them.
    """

    tensor: AxisTensor
    position: int
    numbers: np.ndarray | None


@dataclass(frozen=True)
class SelectedAxis:
    """The selected lines of an axis.

    Attributes:
        whole: The tensors of the whole axis.
        numbers: The lines, int64, ascending, counted in the whole axis.
        parts: What is selected of each tensor of which anything is.
    """

    whole: tuple[AxisTensor, ...]
    numbers: np.ndarray
    parts: tuple[SelectedTensor, ...]

    @classmethod
    def of(cls, whole: Sequence[AxisTensor], numbers: np.ndarray) -> SelectedAxis:
        """Divide lines among the tensors of an axis."""
        parts, start = [], 0
        for position, tensor in enumerate(whole):
            first, last = np.searchsorted(numbers, (start, start + tensor.size))
            inside = numbers[first:last] - start
            start += tensor.size
            if len(inside) == tensor.size and tensor.size:
                parts.append(SelectedTensor(tensor, position, None))
            elif len(inside):
                part = AxisTensor(tensor.name, _shape(tensor, inside), tensor.dtype)
                parts.append(SelectedTensor(part, position, inside))
        return cls(tuple(whole), numbers, tuple(parts))

    @property
    def digest(self) -> str:
        """The SHA-256 of the numbers of the lines."""
        return hashlib.sha256(np.ascontiguousarray(self.numbers, "<i8").tobytes()).hexdigest()

    @property
    def is_whole(self) -> bool:
        """Whether all lines are selected."""
        return len(self.numbers) == self.size

    @property
    def size(self) -> int:
        """The number of lines of the whole axis."""
        return sum(tensor.size for tensor in self.whole)


def selected_axis(
    option: str, selection: str | dict[str, Any] | None, whole: Sequence[AxisTensor], seed: int
) -> SelectedAxis:
    """Return the lines that an option selects.

    Args:
        option: ``rows`` or ``columns``.
        selection: Its checked value; None selects all.
        whole: The tensors of the axis.
        seed: The seed of a sample.

    Raises:
        ConfigurationError: There are no such lines, or they are not in ascending order.
    """
    size = sum(tensor.size for tensor in whole)
    if selection is None:
        return SelectedAxis.of(whole, np.arange(size))
    if isinstance(selection, str):
        what = f"the matrix has {size} {option}"
        return SelectedAxis.of(whole, _numbers(option, selection, size, what))
    if "sample" in selection:
        return SelectedAxis.of(whole, _sample(option, selection["sample"], size, seed))
    if "tensor" in selection:
        names = selection["tensor"]
        chosen = [_lines_of(f"{option}.tensor", name, whole) for name in names]
        if len(set(names)) < len(names):
            raise ConfigurationError(f"{option}.tensor={names}: a name is given twice")
        return SelectedAxis.of(
            whole, np.sort(np.concatenate([np.arange(*each) for each in chosen]))
        )
    return SelectedAxis.of(whole, _entries(option, selection["of"], selection["index"], whole))


def _entries(option: str, name: str, index: str, whole: Sequence[AxisTensor]) -> np.ndarray:
    """Return the lines of entries of a tensor along its leading dimension."""
    start, stop = _lines_of(f"{option}.of", name, whole)
    tensor = next(each for each in whole if each.name == name)
    if not tensor.shape:
        raise ConfigurationError(
            f"{option}.of={name}: this is a single number, without a dimension to index; "
            f"{option}.tensor={name} selects it"
        )
    length = tensor.shape[0]
    what = f"{name} has shape {tensor.shape}, {length} entries along its leading dimension"
    chosen = _numbers(f"{option}.index", index, length, what)
    width = (stop - start) // length
    return (start + chosen[:, None] * width + np.arange(width)).reshape(-1)


def _lines_of(option: str, name: str, whole: Sequence[AxisTensor]) -> tuple[int, int]:
    start = 0
    for tensor in whole:
        if tensor.name == name and tensor.size == 0:
            raise ConfigurationError(f"{option}={name}: this tensor has no elements")
        if tensor.name == name:
            return start, start + tensor.size
        start += tensor.size
    raise unknown(option, name, [tensor.name for tensor in whole])


def _sample(option: str, count: int, size: int, seed: int) -> np.ndarray:
    if count > size:
        raise ConfigurationError(
            f"{option}.sample={count}: the matrix has {size} {option}, which is the largest sample"
        )
    # Rows and columns are drawn independently of one another.
    bits = np.random.Philox(key=[seed, ("rows", "columns").index(option)])
    return np.sort(np.random.Generator(bits).choice(size, count, replace=False))


def _numbers(option: str, text: str, size: int, what: str) -> np.ndarray:
    """Return the numbers that a text or a file names, all below a size."""
    if is_file(text):
        found = _read(option, text)
        option = f"{option}={text}"
        outside = found[(found < 0) | (found >= size)]
        if len(outside):
            raise ConfigurationError(
                f"{option}: {outside[0]} is outside; {what}, from 0 to {size - 1}"
            )
        found = found.astype(np.int64)
    else:
        ranges = ranges_of(option, text)
        for start, stop in ranges:
            if start >= size or (stop or 0) > size:
                given = f"{start}:{'' if stop is None else stop}"
                raise ConfigurationError(
                    f"{option}={str(start) if stop == start + 1 else given}: this is outside; "
                    f"{what}, from 0 to {size - 1}"
                )
        arrays = [np.arange(a, size if b is None else b, dtype=np.int64) for a, b in ranges]
        found, option = np.concatenate(arrays), f"{option}={text}"
    if not len(found):
        raise ConfigurationError(f"{option}: this selects nothing; {what}")
    steps = np.flatnonzero(np.diff(found) <= 0)
    if len(steps):
        one, other = found[steps[0]], found[steps[0] + 1]
        problem = f"{one} is there twice" if one == other else f"{other} follows {one}"
        raise ConfigurationError(
            f"{option}: {problem}; the file keeps lines in the order of the matrix, so that valid "
            "are numbers in ascending order, each once"
        )
    return found


def _read(option: str, path: str) -> np.ndarray:
    """Return the numbers in a file."""
    require_file(option, path)
    try:
        if path.endswith(".npy"):
            found = np.load(Path(path))
        else:
            found = np.array([int(each) for each in Path(path).read_text().split()], np.int64)
    except (OSError, ValueError, EOFError, OverflowError, MemoryError) as error:
        raise ConfigurationError(
            f"{option}={path}: no list of integers could be read ({error})"
        ) from error
    if not isinstance(found, np.ndarray):
        raise ConfigurationError(f"{option}={path}: this is an archive; valid is a single array")
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ConfigurationError(
            f"{option}={path}: this holds {found.dtype} of shape {found.shape}; valid are integers "
            "in one dimension"
        )
    return found


def _shape(tensor: AxisTensor, numbers: np.ndarray) -> tuple[int, ...]:
    width = math.prod(tensor.shape[1:])
    if width > 1 and len(numbers) % width == 0:
        entries = numbers.reshape(-1, width)
        if (entries[:, 0] % width == 0).all() and (np.diff(entries, axis=1) == 1).all():
            return (len(entries), *tensor.shape[1:])
    return (len(numbers),)
