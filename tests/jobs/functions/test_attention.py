"""Attention by torch's default kernel, which a job replaces by the one with all derivatives."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from outputs import Result

Run = Callable[..., Result]

MODEL = """
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

def attention(x):
    query = x.reshape(1, 2, 4, 3)
    return nn.functional.scaled_dot_product_attention(query, 2 * query, query.sin())

def energy(x): return attention(x).square().sum()
def recomputed(x): return checkpoint(attention, x, use_reentrant=False)
def plain(x): return x.sin()

class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x): return self.attention(x, x, x, need_weights=False)[0]

def reference(x):
    query = x.reshape(1, 2, 4, 3)
    weights = (query @ (2 * query).transpose(-1, -2) / 3**0.5).softmax(-1)
    return weights @ query.sin()
"""


@pytest.fixture
def model(directory: Path) -> Path:
    (directory / "model.py").write_text(MODEL)
    np.save("x.npy", np.random.default_rng(0).standard_normal(24))
    np.save("tokens.npy", np.random.default_rng(0).standard_normal((1, 4, 6)))
    return directory


def of(name: str, *more: str, path: str = "x.npy") -> list[str]:
    target = ["function=python", f"function.target=./model.py:{name}"]
    return [*target, "inputs=numpy", f"inputs.path={path}", *more]


def expected(operation: str) -> np.ndarray:
    x = torch.from_numpy(np.load("x.npy"))
    names: dict = {}
    exec(MODEL, names)
    if operation == "jacobian":
        return torch.func.jacrev(names["reference"])(x).reshape(24, 24).numpy()
    return torch.func.hessian(lambda x: names["reference"](x).square().sum())(x).numpy()


@pytest.mark.parametrize("strategy", ["auto", "vectorize", "forward-mode", "reverse-loop"])
@pytest.mark.parametrize("operation", ["jacobian", "hessian"])
def test_attention_is_verified_in_all_strategies(
    operation: str, strategy: str, model: Path, run_job: Run, said
) -> None:
    name = "attention" if operation == "jacobian" else "energy"
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):
        result = run_job(*of(name, f"op={operation}", f"strategy={strategy}"))
        assert torch.backends.cuda.flash_sdp_enabled()
    assert result.verdict.state == "verified"
    np.testing.assert_allclose(result[...], expected(operation), rtol=1e-9, atol=1e-12)
    assert said.getvalue().count("attention is evaluated by torch's math kernel") == 1
    assert result.execution["notes"][0].startswith("attention is evaluated")
    assert not result.execution["fallbacks"]


def test_a_backward_that_evaluates_again_finds_the_same_kernel(model: Path, run_job: Run) -> None:
    result = run_job(*of("recomputed", "op=jacobian", "strategy=reverse-loop"))
    assert result.verdict.state == "verified"
    np.testing.assert_allclose(result[...], expected("jacobian"), rtol=1e-9, atol=1e-12)


def test_attention_inside_modules_of_torch_and_none(model: Path, run_job: Run) -> None:
    result = run_job(*of("Heads", "op=jacobian", path="tokens.npy"))
    assert result.verdict.state == "verified"
    assert len(result.execution["notes"]) == 1
    assert not run_job(*of("plain", "op=jacobian")).execution["notes"]
