"""Writes to repeated places, of which the last one counts, and torch's reverse mode sees all.

The pattern is that of the last write. The check of a job must notice where reverse mode has more.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import jobs
from outputs import Result, SparseResult, VerificationState

PLACES = torch.tensor([0, 2, 0, 1, 0])


def assigned(x: Tensor) -> Tensor:
    y = x.sin()
    y[PLACES] = x[:5] ** 2
    return y


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "put": lambda x: x.sin().put(PLACES, x[:5] ** 2),
    "index_put": lambda x: x.sin().index_put((PLACES,), x[:5] ** 2),
    "scatter": lambda x: x.sin().scatter(0, PLACES, x[:5] ** 2),
    "index_copy": lambda x: x.sin().index_copy(0, PLACES, x[:5] ** 2),
    "assigned": assigned,
}


def matrix(result: Result | SparseResult) -> np.ndarray:
    with result:
        assert result.verdict.state is VerificationState.VERIFIED
        if isinstance(result, SparseResult):
            return result.as_scipy().toarray()
        return np.asarray(result[:])


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.usefixtures("directory")
def test_a_verified_matrix_is_that_of_what_the_function_computes(name: str) -> None:
    function, x = FUNCTIONS[name], torch.linspace(0.5, 1.5, 8, dtype=torch.float64)
    options: dict[str, Any] = {"sparsity": "auto", "progress": "quiet"}
    step = 1e-6
    steps = step * torch.eye(8, dtype=torch.float64)
    slopes = [(function(x + each) - function(x - each)) / (2 * step) for each in steps]
    found = matrix(jobs.compute("jacobian", function, x, **options))
    np.testing.assert_allclose(found, torch.stack(slopes, -1).numpy(), atol=1e-8)
    # Without differences reverse mode decides, whatever the pattern says.
    by_reverse: Any = torch.autograd.functional.jacobian(function, x)
    assert np.abs(by_reverse.numpy() - found).max() > 1
    without = {**options, "verify": {"differences": False}}
    again = matrix(jobs.compute("jacobian", function, x, **without, overwrite=True))
    np.testing.assert_allclose(again, by_reverse, rtol=1e-12)
    assert list(Path("runs").glob("*/result.h5"))
