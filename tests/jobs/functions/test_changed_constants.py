"""A function that changes a constant or its data in place is refused by the name of these."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import JobError
from outputs import Result, VerificationState

FUNCTIONS = """
import torch

def scaling(x, factor, rest): return (x * factor.mul_(1.1) + rest).sin()
def cutting(x, factor, rest): return (x * factor.clamp_(min=0) + rest).sin()

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, data): return self.layer(data.mul_(1.5))
"""
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def files(directory: Path) -> None:
    (directory / "own.py").write_text(FUNCTIONS)
    random = np.random.default_rng(0)
    names = ("x", "factor", "rest", "data", "label")
    given = {name: random.standard_normal((6, 4)) for name in names}
    np.savez("given.npz", **given)  # pyright: ignore[reportArgumentType]


def options(name: str, *more: str) -> tuple[str, ...]:
    target = f"function.target=./own.py:{name}"
    return ("function=python", target, "inputs=numpy", "inputs.path=given.npz", *more)


@pytest.mark.parametrize("points", ["single", "leading"])
def test_a_constant_is_named(points: str, run_job: Run) -> None:
    words = ("op=jacobian", "wrt.pattern=x", f"points={points}")
    with pytest.raises(JobError, match=r"changes factor in place, .*: factor = factor\.clone\(\)"):
        run_job(*options("scaling", *words))


def test_data_are_named(run_job: Run) -> None:
    with pytest.raises(JobError, match=r"changes data in place, .*: data = data\.clone\(\)"):
        run_job(*options("Net", "op=hessian", "wrt=params", "loss=mse"))


def test_a_change_that_makes_no_difference_is_allowed(run_job: Run) -> None:
    result = run_job(*options("cutting", "op=jacobian", "wrt.pattern=x"))
    assert result.verdict.state is VerificationState.VERIFIED
    given = np.load("given.npz")
    factor = np.maximum(given["factor"], 0)
    expected = factor * np.cos(given["x"] * factor + given["rest"])
    np.testing.assert_allclose(result[:], np.diag(expected.ravel()), rtol=1e-12, atol=1e-14)
