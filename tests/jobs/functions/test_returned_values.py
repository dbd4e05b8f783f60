"""Functions of several outputs, and the names of these."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from outputs import Result
from tests.jobs.support.own_functions import of

Run = Callable[..., Result]


@pytest.mark.parametrize("name", ["several", "named", "both"])
@pytest.mark.parametrize("operation", ["vjp", "jvp"])
def test_products_of_several_outputs(operation: str, name: str, own: Path, run_job: Run) -> None:
    point = "points" if name == "both" else "point"
    result = run_job(*of(name, point), f"op={operation}", "strategy=vectorize", "vectors.count=2")
    matrix = run_job(*of(name, point))[...]
    vectors = np.concatenate([v.reshape(2, -1) for v in result.vectors.values()], axis=1)
    expected = vectors @ (matrix if operation == "vjp" else matrix.T)
    np.testing.assert_allclose(result[...], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("square", ["output"]),
        ("several", ["output0", "output1"]),
        ("named", ["z/b", "a c"]),
    ],
)
def test_outputs_have_names_in_the_file(
    name: str, rows: list[str], own: Path, run_job: Run
) -> None:
    result = run_job(*of(name))
    assert [tensor.name for tensor in result.rows] == list(result.value) == rows
    assert [tensor.name for tensor in result.columns] == list(result.points) == ["x"]
    assert result.function == f"own:{name}"
    for row in rows:
        assert result.block(row, "x").shape == (*result.value[row].shape, 3)
