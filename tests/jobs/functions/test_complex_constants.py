"""Complex constants, buffers and parameters stay complex under a real dtype, the default."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd.functional import jacobian

from outputs import Result

Run = Callable[..., Result]

MODEL = """
import torch
from torch import nn

class Rotary(nn.Module):
    def __init__(self):
        super().__init__()
        angles = torch.outer(torch.arange(4.0), torch.tensor([1.0, 0.1]))
        self.register_buffer("turns", torch.polar(torch.ones(4, 2), angles))
        self.gains = nn.Parameter(torch.tensor([1 + 2j, 3 - 1j]))

    def forward(self, x):
        pairs = torch.view_as_complex(x.reshape(4, 2, 2).contiguous())
        return torch.view_as_real(pairs * self.turns * self.gains).reshape(4, 4)

def response(x, filter):
    return (torch.fft.fft(x) * filter).abs()

def distance(output, target):
    return (torch.view_as_complex(output.reshape(4, 2, 2)) - target).abs().square().sum()
"""
PRECISION = {"float64": 1e-12, "float32": 1e-5}


@pytest.fixture
def model(directory: Path) -> Path:
    (directory / "model.py").write_text(MODEL)
    generator = np.random.default_rng(0)
    np.savez(
        directory / "filtered.npz",
        x=generator.standard_normal(6),
        filter=generator.standard_normal(6) + 1j * generator.standard_normal(6),
    )
    np.savez(
        directory / "rows.npz",
        x=generator.standard_normal((4, 4)),
        target=generator.standard_normal((4, 2)) + 1j * generator.standard_normal((4, 2)),
    )
    np.save(directory / "x.npy", generator.standard_normal((4, 4)))
    return directory


def rotated(x: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
    angles = torch.outer(torch.arange(4.0), torch.tensor([1.0, 0.1]))
    turns = torch.polar(torch.ones(4, 2), angles).to(x.dtype.to_complex())
    pairs = torch.view_as_complex(x.reshape(4, 2, 2).contiguous())
    return torch.view_as_real(pairs * turns * gains).reshape(4, 4)


GAINS = torch.tensor([1 + 2j, 3 - 1j], dtype=torch.complex128)


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode"])
def test_a_complex_constant_of_the_same_file(
    model: Path, run_job: Run, strategy: str, dtype: str
) -> None:
    result = run_job(
        "op=jacobian",
        "function=python",
        "function.target=./model.py:response",
        "inputs=numpy",
        "inputs.path=filtered.npz",
        "wrt.pattern=x",
        f"strategy={strategy}",
        f"dtype={dtype}",
    )
    data = np.load(model / "filtered.npz")
    x, filtering = torch.tensor(data["x"]), torch.tensor(data["filter"])
    expected = jacobian(lambda x: (torch.fft.fft(x) * filtering).abs(), x)
    np.testing.assert_allclose(result[...], expected, atol=10 * PRECISION[dtype])


@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode"])
def test_complex_buffers_and_parameters_of_a_module(
    model: Path, run_job: Run, strategy: str
) -> None:
    module = ["function=python", "function.target=./model.py:Rotary", f"strategy={strategy}"]
    by_inputs = run_job("op=jacobian", *module, "inputs=numpy", "inputs.path=x.npy")
    x = torch.tensor(np.load(model / "x.npy"))
    expected = jacobian(lambda x: rotated(x, GAINS), x).reshape(16, 16)
    np.testing.assert_allclose(by_inputs[...], expected, atol=1e-12)


def test_a_complex_parameter_is_differentiated_as_one(model: Path, run_job: Run) -> None:
    result = run_job(
        "op=jacobian",
        "function=python",
        "function.target=./model.py:Rotary",
        "wrt=params",
        "inputs=numpy",
        "inputs.path=x.npy",
    )
    x = torch.tensor(np.load(model / "x.npy"))
    parts = torch.view_as_real(GAINS).clone()
    real = jacobian(lambda parts: rotated(x, torch.view_as_complex(parts)), parts)
    expected = torch.complex(real[..., 0], real[..., 1]).reshape(16, 2)
    np.testing.assert_allclose(result[...], expected, atol=1e-12)


def test_a_complex_label_of_a_loss(model: Path, run_job: Run) -> None:
    result = run_job(
        "op=jacobian",
        "function=python",
        "function.target=./model.py:Rotary",
        "wrt=params",
        "loss=python",
        "loss.target=./model.py:distance",
        "loss.label=target",
        "loss.reduction=sum",
        "loss.batch_size=4",
        "inputs=numpy",
        "inputs.path=rows.npz",
    )
    data = np.load(model / "rows.npz")
    x, target = torch.tensor(data["x"]), torch.tensor(data["target"])
    gains = GAINS.clone().requires_grad_()
    output = torch.view_as_complex(rotated(x, gains).reshape(4, 2, 2))
    (gradient,) = torch.autograd.grad((output - target).abs().square().sum(), gains)
    np.testing.assert_allclose(result[...], gradient.reshape(1, 2), atol=1e-11)
