from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from outputs import ResultDescription, ResultWriter, TensorSpec


def description(shape: tuple[int, int] = (12, 20), **changes: Any) -> ResultDescription:
    dtype = changes.get("dtype", "float64")
    fields: dict[str, Any] = {
        "operation": "jacobian",
        "strategy": "reverse-loop",
        "function": "module:function",
        "fingerprint": "0123456789abcdef",
        "axis": "rows",
        "rows": (TensorSpec("y", (shape[0],), dtype),),
        "columns": (TensorSpec("x", (shape[1],), dtype),),
        "dtype": dtype,
        "rows_are_tuple": False,
        "columns_are_tuple": False,
        "point": {"x": np.arange(3.0)},
        "value": {"y": np.float64(2.5)},
        "vectors": {},
        "configuration": "operation: jacobian\n",
        "provenance": {"torch": "2.13", "seed": 7, "deterministic": True, "created": "now"},
    }
    return ResultDescription(**(fields | changes))


@pytest.fixture(name="describe")
def _describe() -> Callable[..., ResultDescription]:
    return description


@pytest.fixture
def entries() -> Callable[[tuple[int, int], str], np.ndarray]:
    def matrix(shape: tuple[int, int], dtype: str) -> np.ndarray:
        random = np.random.default_rng(0)
        values = random.standard_normal(shape)
        if np.dtype(dtype).kind == "c":
            values = values + 1j * random.standard_normal(shape)
        return values.astype(dtype)

    return matrix


@pytest.fixture
def write_all() -> Callable[..., None]:
    def write(writer: ResultWriter, axis: str, matrix: np.ndarray, sizes: list[int]) -> None:
        lines, start = matrix.shape[0 if axis == "rows" else 1], 0
        while start < lines:
            stop = min(lines, start + sizes[start % len(sizes)])
            block = matrix[start:stop] if axis == "rows" else matrix[:, start:stop]
            writer.write(start, stop, block)
            start = stop

    return write


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Write two results of about 300 MB, in pieces, and return their paths by block axis."""
    paths = {}
    rows, columns = 6000, 6400
    for axis, lines in (("rows", rows), ("columns", columns)):
        path = tmp_path_factory.mktemp("large") / f"{axis}.h5"
        with ResultWriter.create(path, description((rows, columns), axis=axis)) as writer:
            for start in range(0, lines, 400):
                band = np.arange(start, start + 400, dtype=float)[:, None] + np.arange(
                    columns if axis == "rows" else rows
                )
                writer.write(start, start + 400, band if axis == "rows" else band.T)
            writer.finish({})
        paths[axis] = str(path)
    return paths
