"""An LSTM in single precision, which a job computes step by step."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.functions.kernels import differentiable_kernels
from outputs import Result

Run = Callable[..., Result]

MODEL = """
import torch
from torch import nn

torch.manual_seed(0)
cells = nn.LSTM(3, 4, 2)

def states(x): return cells(x[:, None])[0][:, 0]
def energy(x): return states(x).square().sum()
"""


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
@pytest.mark.parametrize("operation", ["jacobian", "hessian"])
def test_an_lstm_is_verified_in_both_modes(
    operation: str, strategy: str, directory: Path, run_job: Run
) -> None:
    (directory / "model.py").write_text(MODEL)
    np.save("x.npy", np.random.default_rng(0).standard_normal((5, 3)).astype("float32"))
    name = "states" if operation == "jacobian" else "energy"
    target = ["function=python", f"function.target=./model.py:{name}", "dtype=float32"]
    point = ["inputs=numpy", "inputs.path=x.npy"]
    result = run_job(*target, *point, f"op={operation}", f"strategy={strategy}")
    assert result.verdict.state == "verified"
    assert not result.execution["fallbacks"]
    names: dict = {}
    exec(MODEL, names)
    names["cells"].double()
    x = torch.from_numpy(np.load("x.npy")).double()
    exact = getattr(torch.autograd.functional, operation)(names[name], x)
    np.testing.assert_allclose(result[...], exact.reshape(result.shape), rtol=1e-4, atol=1e-6)


def test_the_kernel_is_the_default_one_afterwards() -> None:
    cells, x = torch.nn.LSTM(3, 4), torch.ones(5, 1, 3)
    default = _kernel(cells(x)[0])
    with differentiable_kernels(), differentiable_kernels():
        assert "Mkldnn" not in _kernel(cells(x)[0])
    assert _kernel(cells(x)[0]) == default


def _kernel(value: torch.Tensor) -> str:
    assert value.grad_fn is not None
    return value.grad_fn.name()
