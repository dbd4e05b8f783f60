"""Keep an analysis within a limit of memory, or refuse it with figures before it starts."""

from __future__ import annotations

import os
import re
import resource
from dataclasses import dataclass
from pathlib import Path

from outputs._errors import ResultError
from outputs._storage.free_memory import free_memory

_UNITS = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_UNITS |= {f"{unit}iB": size for unit, size in _UNITS.items() if unit in "KMGT" and unit}
_UNITS |= {f"{unit}B": 1000**power for power, unit in enumerate("KMGT", 1)}
# What a pass over a file takes beside its operands: HDF5's cache of tiles, and for each thread a
# piece with its conversion to double precision and a buffer of BLAS.
_PASS_BYTES = (64 + 32 * min(8, os.cpu_count() or 1)) * 2**20


def parse_size(text: str) -> int:
    """Return the bytes of a size such as ``1GiB``, ``512MiB``, ``2G`` or ``1.5GB``.

    Raises:
        ResultError: If it is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*", text)
    units = {unit.lower(): size for unit, size in _UNITS.items()}
    if found is None or found[2].lower() not in units or not float(found[1]):
        raise ResultError(f"--memory={text} is no size; 1GiB, 512MiB and 1.5GB are.")
    return int(float(found[1]) * units[found[2].lower()])


def size_text(count: float) -> str:
    """Return a number of bytes with a binary prefix, such as 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


@dataclass(frozen=True)
class Budget:
    """How much memory an analysis may take.

    Attributes:
        free: Bytes for matrices and vectors, beside the process itself and a pass over the file.
        taken: What the process and a pass take already.
        is_given: Whether a limit was given.
    """

    free: int
    taken: int = 0
    is_given: bool = True

    @classmethod
    def of_process(cls, limit: int | None) -> Budget:
        """Return what a limit leaves to this process; without one, half of what is free.

        Args:
            limit: Bytes that the process may take in all.

        Raises:
            ResultError: If the process takes as much before the analysis starts.
        """
        taken = _resident() + _PASS_BYTES
        if limit is None:
            free = free_memory()
            return cls((2**30 if free is None else free // 2) - _PASS_BYTES, taken, False)
        if limit <= taken:
            raise ResultError(
                f"--memory={size_text(limit)} is too small: the process and a pass over the file "
                f"take {size_text(taken)} alone."
            )
        return cls(limit - taken, taken)

    def require(self, needed: int, what: str) -> None:
        """Check that there is memory for something.

        Args:
            needed: The bytes that it takes.
            what: What needs them, as the subject of a sentence.

        Raises:
            ResultError: If that is more than is free, with both figures.
        """
        if needed > self.free:
            given = "--memory" if self.is_given else "half of what is free on this machine"
            least = needed + self.taken
            raise ResultError(
                f"{what} needs {size_text(needed)} of memory, and {given} leaves "
                f"{size_text(max(0, self.free))}; --memory={-(-least // 2**20)}MiB is enough."
            )


def _resident() -> int:
    """Return the resident memory of this process in bytes."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
