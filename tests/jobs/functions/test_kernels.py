"""LSTMs in single precision and encoder layers, of which torch's kernels have no derivatives."""

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

layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval().requires_grad_(False)

def tokens(x): return layer(x[None])
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


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
def test_an_encoder_layer_for_inference_is_verified(
    strategy: str, directory: Path, run_job: Run
) -> None:
    (directory / "model.py").write_text(MODEL)
    np.save("x.npy", np.random.default_rng(0).standard_normal((3, 4)).astype("float32"))
    target = ["function=python", "function.target=./model.py:tokens", "dtype=float32"]
    point = ["inputs=numpy", "inputs.path=x.npy", "op=jacobian"]
    result = run_job(*target, *point, f"strategy={strategy}")
    assert result.verdict.state == "verified"
    names: dict = {}
    exec(MODEL, names)
    names["layer"].double()
    x = torch.from_numpy(np.load("x.npy")).double()
    exact = torch.autograd.functional.jacobian(names["tokens"], x).reshape(12, 12)
    np.testing.assert_allclose(result[...], exact, rtol=1e-4, atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_kernel_is_the_default_one_afterwards() -> None:
    cells, x = torch.nn.LSTM(3, 4), torch.ones(5, 1, 3)
    default = _kernel(cells(x)[0])
    with differentiable_kernels(), differentiable_kernels():
        assert "Mkldnn" not in _kernel(cells(x)[0])
    assert _kernel(cells(x)[0]) == default


def _kernel(value: torch.Tensor) -> str:
    assert value.grad_fn is not None
    return value.grad_fn.name()
