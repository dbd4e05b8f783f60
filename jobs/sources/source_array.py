"""An array that may still be in its file, with a text that says where it comes from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.errors import ConfigurationError

BYTES_AT_ONCE = 64 * 2**20
_INDEX = re.compile(r"-?\d+")
_RANGE = re.compile(r"(-?\d+)?:(-?\d+)?(?::(\d+))?")


@dataclass(frozen=True)
class SourceArray:
    """A named array of a source.

    Attributes:
        values: The numbers: a numpy array (perhaps a memory map), an HDF5 dataset or a tensor;
            data are read when they are indexed.
        origin: The option, the file and the name in it, for messages.
        is_text: Whether the numbers were written as text, in which 1 may mean 1.0.
    """

    values: Any
    origin: str
    is_text: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array."""
        return tuple(self.values.shape)

    @property
    def dtype_name(self) -> str:
        """The name of the dtype of the numbers where they come from."""
        if isinstance(self.values, Tensor):
            return name_of(self.values.dtype)
        return np.dtype(self.values.dtype).name

    @property
    def is_complex(self) -> bool:
        """Whether the numbers are complex."""
        return _kind(self.values) == "c"

    @property
    def is_floating(self) -> bool:
        """Whether the numbers are real floating-point numbers."""
        return _kind(self.values) == "f"

    @property
    def is_integral(self) -> bool:
        """Whether the numbers are integers or truth values."""
        return _kind(self.values) in "iub"

    def dtype_under(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype of the values in a job: complex values stay complex under a real one."""
        return dtype.to_complex() if self.is_complex else dtype

    def part(self, text: str | None) -> SourceArray:
        """Return a part of the array.

        Args:
            text: An index in Python's notation, such as ``7`` or ``0:100`` or ``0:10,:,3``; None
                takes the whole array.

        Raises:
            ConfigurationError: The text is no such index, or the array has no such part.
        """
        if text is None:
            return self
        origin = f"{self.origin}, slice {text}"
        index = tuple(_index(each.strip(), origin) for each in str(text).split(","))
        if len(index) > len(self.shape):
            raise ConfigurationError(
                f"{origin}: this has {len(index)} dimensions; the shape is {self.shape}"
            )
        for position, (each, length) in enumerate(zip(index, self.shape, strict=False)):
            if isinstance(each, int) and not -length <= each < length:
                raise ConfigurationError(
                    f"{origin}: there is not an index {each} in dimension {position}; the shape is "
                    f"{self.shape}"
                )
        # HDF5 has no negative indices.
        plain = tuple(
            each % length if isinstance(each, int) else slice(*each.indices(length))
            for each, length in zip(index, self.shape, strict=False)
        )
        return SourceArray(self.values[plain], origin, self.is_text)

    def require_numbers(self, dtype: torch.dtype, name: str) -> None:
        """Check that the values can be converted, and that they are finite.

        Args:
            dtype: The dtype that floating-point values will be converted to.
            name: The name of the tensor, for messages.

        Raises:
            ConfigurationError: The values cannot be converted or are not finite.
        """
        if _kind(self.values) not in "fiucb":
            raise ConfigurationError(
                f"{self.origin}: {name} is of dtype {self.values.dtype}; valid are real and "
                "complex numbers"
            )
        if self.is_complex and not dtype.is_complex:
            raise ConfigurationError(
                f"{self.origin}: {name} is complex where {str(dtype).removeprefix('torch.')} is "
                "needed; valid for complex inputs are dtype=complex64 and dtype=complex128"
            )
        # They are converted to int64, in which they would be negative.
        if self.values.dtype == np.uint64 and any(bool((p < 0).any()) for p in self.pieces()):
            raise ConfigurationError(
                f"{self.origin}: {name} holds integers beyond 2^63 - 1; valid are floating-point "
                "numbers in their place"
            )
        if self.is_complex or self.is_floating:
            count = sum(int((~torch.isfinite(piece)).sum()) for piece in self.pieces())
            if count:
                raise ConfigurationError(
                    f"{self.origin}: {name} holds {count} values that are not finite"
                )

    def tensor(self, dtype: torch.dtype, device: torch.device, rows: slice | None = None) -> Tensor:
        """Return the values, or some of them along the leading dimension, as a tensor.

        Args:
            dtype: The dtype of the tensor.
            device: The device of the tensor.
            rows: The indices of the leading dimension to take; None takes all.
        """
        return _as_tensor(self.values, rows).to(device, dtype)

    def kept(self, dtype: torch.dtype, device: torch.device, rows: slice | None = None) -> Tensor:
        """Return the values of what is not differentiated, converted as `converted` does."""
        return converted(_as_tensor(self.values, rows), dtype, device)

    def pieces(self) -> Iterator[Tensor]:
        """Yield the values in pieces along the leading dimension, each of about 64 MiB."""
        if not self.shape:
            yield _as_tensor(self.values, None)
            return
        row = max(1, math.prod(self.shape[1:])) * self.values.dtype.itemsize
        step = max(1, BYTES_AT_ONCE // row)
        for start in range(0, self.shape[0], step):
            yield _as_tensor(self.values, slice(start, start + step))


def converted(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Convert a tensor to the precision of a job, and keep its kind.

    Integers and truth values stay what they are, and complex numbers stay complex under a real
    dtype: dropping imaginary parts would change the function.

    Args:
        tensor: Any tensor.
        dtype: The dtype of the job, real or complex.
        device: Where the result lies.
    """
    if tensor.is_complex():
        return tensor.to(device, dtype.to_complex())
    return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)


def name_of(dtype: torch.dtype) -> str:
    """Return the name of a dtype as options have it."""
    return str(dtype).removeprefix("torch.")


def source_of_tensor(tensor: Tensor, origin: str) -> SourceArray:
    """Return a tensor as an array with an origin."""
    return SourceArray(tensor.detach(), origin)


def _as_tensor(values: Any, rows: slice | None) -> Tensor:
    part = values[()] if rows is None and not isinstance(values, Tensor) else values
    part = part if rows is None else part[rows]
    if isinstance(part, Tensor):
        return part
    array = np.asarray(part)
    # torch has only the native byte order, no long double, and needs writable memory.
    dtype = {"f": np.float64, "c": np.complex128}.get(array.dtype.kind)
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        dtype = np.int64
    return torch.from_numpy(np.array(array, dtype=dtype))


def _kind(values: Any) -> str:
    if not isinstance(values, Tensor):
        return values.dtype.kind
    if values.is_complex():
        return "c"
    if values.is_floating_point():
        return "f"
    return "b" if values.dtype == torch.bool else "i"


def _index(text: str, origin: str) -> int | slice:
    if _INDEX.fullmatch(text):
        return int(text)
    found = _RANGE.fullmatch(text)
    if not found or found[3] == "0":
        raise ConfigurationError(
            f"{origin}: {text} is not an index; valid are integers and ranges, such as 7 or 0:100 "
            "or 0:10,:,3"
        )
    return slice(*(None if part is None else int(part) for part in found.groups()))
