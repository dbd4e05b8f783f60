"""The contract of a stream of blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.streams.at_points import PointStream


@dataclass(frozen=True)
class StreamFacts:
    """What is to be known of a stream of blocks by those who do not compute them.

    Attributes:
        axis: ``rows`` or ``columns``.
        shape: (rows, columns).
        dtype: That of the entries.
        unit: How many lines belong to one of many points.
        is_divisible: Whether a part of a point can be computed by itself.
    """

    axis: str
    shape: tuple[int, int]
    dtype: torch.dtype
    unit: int
    is_divisible: bool

    @classmethod
    def of(cls, stream: Any) -> StreamFacts:
        """Those of a stream."""
        is_of_points = isinstance(stream, PointStream)
        return cls(
            stream.axis,
            tuple(stream.shape),
            stream.dtype,
            stream.unit if is_of_points else 1,
            stream.is_divisible if is_of_points else True,
        )

    @property
    def across(self) -> int:
        """The length of a line."""
        return self.shape[1] if self.axis == "rows" else self.shape[0]


def to_numpy(values: Tensor) -> np.ndarray:
    """A block as numpy stores it: on the host, bfloat16 widened to float32."""
    if values.dtype == torch.bfloat16:
        values = values.float()
    return values.detach().resolve_conj().resolve_neg().cpu().numpy()


def stored_dtype(dtype: torch.dtype) -> np.dtype:
    """The numpy dtype that holds a torch dtype without loss."""
    return to_numpy(torch.empty(0, dtype=dtype)).dtype
