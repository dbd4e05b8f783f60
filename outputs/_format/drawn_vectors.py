"""The vectors of a product as the numbers from which each of them is drawn.

Vector number i is drawn from Philox, a counter-based generator (J. K. Salmon, M. A. Moraes,
R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011), with the key
(seed, i). So any vector can be drawn by itself, in any order, with numpy alone. Only the raw
integers of the generator are used, which numpy promises not to change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from outputs._errors import ResultError
from outputs._format.axes import TensorSpec
from outputs._format.validation import require_choice
from outputs._storage.free_memory import free_memory


@dataclass(frozen=True)
class DrawnVectors:
    """Random vectors v, independent of one another, with E[v vᴴ] = scale² I.

    Attributes:
        distribution: ``rademacher`` (entries -1 and 1), ``normal``, or ``sparse`` (-√3 and √3 with
            a probability of 1/6 each, else 0: the sparse Johnson-Lindenstrauss transform of
            D. Achlioptas, "Database-friendly random projections", JCSS 66, 2003). Complex entries
            have such real and imaginary parts, over √2.
        seed: The seed, from 0 to 2^63 - 1.
        count: The number of vectors.
        tensors: The tensors that make up a vector, with their dtypes.
        scale: The factor of all entries.

    Raises:
        ResultError: If an attribute is not valid.
    """

    DISTRIBUTIONS: ClassVar[tuple[str, ...]] = ("rademacher", "normal", "sparse")

    distribution: str
    seed: int
    count: int
    tensors: tuple[TensorSpec, ...]
    scale: float = 1.0

    def __post_init__(self) -> None:
        require_choice("distribution of vectors", self.distribution, self.DISTRIBUTIONS)
        if not 0 <= self.seed < 2**63 or self.count < 1 or not np.isfinite(self.scale):
            raise ResultError(
                f"There are no {self.count} vectors by seed {self.seed} and scale {self.scale}."
            )

    def __str__(self) -> str:
        scale = "" if self.scale == 1 else f" times {self.scale}"
        return (
            f"{self.count} {self.distribution} vectors{scale}, drawn by (seed {self.seed}, index)"
        )

    def vector(self, index: int) -> dict[str, np.ndarray]:
        """Return one vector, by tensor name, in natural shape.

        Args:
            index: Its number, from 0.

        Raises:
            ResultError: If there is no such vector, or it does not fit in memory.
        """
        return {name: array[0] for name, array in self.stacked(index, index + 1).items()}

    def stacked(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the vectors start, ..., stop - 1, each tensor of shape (stop - start, *shape).

        Raises:
            ResultError: If there are no such vectors, or they do not fit in memory.
        """
        if not 0 <= start <= stop <= self.count:
            raise ResultError(f"There are no vectors {start}:{stop} of {self.count}.")
        widths = [spec.size * (2 if _is_complex(spec) else 1) for spec in self.tensors]
        needed, free = 8 * sum(widths) * (stop - start + 4), free_memory()
        if free is not None and needed > free:
            raise ResultError(
                f"The vectors {start}:{stop} take {needed} bytes, and {free} of memory are free; "
                "vector(i) draws one of them."
            )
        found = {
            spec.name: np.empty((stop - start, *spec.shape), _dtype(spec)) for spec in self.tensors
        }
        bounds = np.cumsum(widths)[:-1]
        for index in range(start, stop):
            entries = self.scale * self._entries(index, sum(widths))
            for spec, part in zip(self.tensors, np.split(entries, bounds), strict=True):
                found[spec.name][index - start] = _shaped(part, spec)
        return found

    def _entries(self, index: int, count: int) -> np.ndarray:
        """Return real entries of variance 1, float64 of shape (count,)."""
        generator = np.random.Philox(key=np.array([self.seed, index], np.uint64))
        if self.distribution == "rademacher":
            raw = generator.random_raw(-(-count // 64))
            bits = np.unpackbits(raw.astype("<u8").view(np.uint8), bitorder="little")
            return 2.0 * bits[:count] - 1.0
        half = -(-count // 2)
        if self.distribution == "sparse":
            raw = generator.random_raw(half)
            sides = np.concatenate([raw & np.uint64(2**32 - 1), raw >> np.uint64(32)])[:count]
            faces = (sides * np.uint64(6)) >> np.uint64(32)
            return np.sqrt(3.0) * ((faces == 0).astype(float) - (faces == 1))
        # The transform of G. E. P. Box and M. E. Muller, 1958.
        uniform = (generator.random_raw(2 * half) >> np.uint64(11)) * 2.0**-53
        radius, angle = np.sqrt(-2 * np.log1p(-uniform[:half])), 2 * np.pi * uniform[half:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def _is_complex(spec: TensorSpec) -> bool:
    return spec.dtype.startswith("complex")


def _dtype(spec: TensorSpec) -> np.dtype:
    """Return the dtype in which numpy holds a tensor: float32 for bfloat16."""
    try:
        found = np.dtype("float32" if spec.dtype == "bfloat16" else spec.dtype)
    except TypeError:
        found = np.dtype(object)
    if found.kind not in "fc":
        raise ResultError(f"Vectors of {spec.dtype!r} cannot be drawn.")
    return found


def _shaped(entries: np.ndarray, spec: TensorSpec) -> np.ndarray:
    if _is_complex(spec):
        real, imaginary = entries.reshape(2, -1) / np.sqrt(2)
        entries = real + 1j * imaginary
    elif spec.dtype == "bfloat16":
        # Rounded to the nearest, to even.
        bits = entries.astype(np.float32).view(np.uint32)
        bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        entries = (bits & np.uint32(0xFFFF0000)).view(np.float32)
    return entries.reshape(spec.shape)
