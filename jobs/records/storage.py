"""How the entries of a result are stored, and how a command asks for them to be stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from jobs.job import Job
from jobs.streams.stream import stored_dtype
from outputs import Result, SparseResult

_AUTO = "auto"


@dataclass(frozen=True)
class Storage:
    """How the entries of a result are stored.

    Attributes:
        dtype: The stored dtype.
        computed: The dtype in which they are stored with `output.dtype=auto`; empty if unknown.
        compression: The filter, ``none`` or ``gzip``.
        tile: The tile that was asked for, such as ``[3, 4]``, or ``auto``.
    """

    dtype: str
    computed: str
    compression: str
    tile: str

    @classmethod
    def of_result(cls, result: Result | SparseResult) -> Storage:
        """Return how an open result is stored, finished or not."""
        options = _options(result)
        dtype = str(result.dtype)
        is_as_computed = options.get("dtype", _AUTO) == _AUTO
        return cls(
            dtype=dtype,
            computed=dtype if is_as_computed else _dtype_of_tensors(result),
            compression=getattr(result, "compression", options.get("compression", "none")),
            tile=_tile(options.get("tile")),
        )

    def other_option(self, job: Job) -> tuple[str, str, str] | None:
        """Return an option by which a job asks for another storage; None if it asks for none.

        Returns:
            The option, its value of the result, and the value that the job asks for.
        """
        asked = _AUTO if job.storage is None else str(stored_dtype(job.storage))
        pairs = {
            "dtype": (self.dtype, self.computed if asked == _AUTO else asked, asked),
            "compression": (self.compression, job.compression, job.compression),
            "tile": (self.tile, _tile(job.tile), _tile(job.tile)),
        }
        for name, (stored, now, shown) in pairs.items():
            if now not in ("", stored):
                return f"output.{name}", stored, shown
        return None


def option_in_words(option: str, value: str) -> str:
    """Return an option of storage with a value, as it is typed."""
    is_null = option == "output.tile" and value == _AUTO
    return f"{option}={'null' if is_null else value.replace(' ', '')}"


def _tile(tile: Any) -> str:
    return _AUTO if tile is None else str([*tile])


def _options(result: Result | SparseResult) -> dict[str, Any]:
    """Return the group `output` of the configuration that made a result."""
    found = yaml.safe_load(result.configuration)
    options = found.get("output") if isinstance(found, dict) else None
    return options if isinstance(options, dict) else {}


def _dtype_of_tensors(result: Result | SparseResult) -> str:
    """Return the dtype of a matrix whose rows and columns are those of a result; empty if unknown.

    The rows of products count vectors, and have no dtype of entries.
    """
    names = {each.dtype for each in (*result.rows, *result.columns)} - {"int64"}
    # numpy has no bfloat16; it is stored as float32.
    known = [np.dtype("float32" if name == "bfloat16" else name) for name in names]
    return str(np.result_type(*known)) if known else ""
