"""Modules that keep state or are evaluated again in the backward pass: as in a training loop."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacrev

from outputs import Result

Run = Callable[..., Result]

MODEL = """
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = layers()

    def forward(self, x):
        return self.inner(x)

class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx, module, x, *parameters):
        ctx.module = module
        ctx.save_for_backward(x)
        with torch.no_grad():
            return module(x)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            parameters = tuple(ctx.module.parameters())
            wanted = [x, *(each for each in parameters if each.requires_grad)]
            found = iter(torch.autograd.grad(ctx.module(x), wanted, cotangent, allow_unused=True))
            gradient = next(found)
            rest = [next(found) if each.requires_grad else None for each in parameters]
            return None, gradient, *rest

class Adjoint(Plain):
    def forward(self, x):
        return _Adjoint.apply(self.inner, x, *self.inner.parameters())

class Checkpointed(Plain):
    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False)

class Cached(Plain):
    cache = None

    def forward(self, x):
        if self.cache is None:
            self.cache = self.inner(x)
        return self.cache

class CachedInADictionary(Plain):
    def __init__(self):
        super().__init__()
        self.cache = {}

    def forward(self, x):
        if "output" not in self.cache:
            self.cache["output"] = self.inner(x)
        return self.cache["output"]

class Hooked(Plain):
    def __init__(self):
        super().__init__()
        self.seen = []
        self.inner[0].register_forward_hook(lambda module, inputs, output: self.seen.append(output))

    def forward(self, x):
        self.seen.clear()
        return self.inner(x) + 0 * self.seen[0].sum()

class _Child(nn.Module):
    def __init__(self, store):
        super().__init__()
        self.store = store

    def forward(self, x):
        self.store.append(x)
        return x

class SharedList(Plain):
    def __init__(self):
        super().__init__()
        self.store = []
        self.child = _Child(self.store)

    def forward(self, x):
        y = self.child(self.inner(x))
        return y + 0 * x + sum(0 * each for each in self.store) + self.store[-1] - y

class CachedInABuffer(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("cache", None)

    def forward(self, x):
        if self.cache is None:
            self.cache = self.inner(x)
        return self.cache

class ThroughAList(Plain):
    def __init__(self):
        super().__init__()
        self.plain_list = [self.inner[0], self.inner[1], self.inner[2]]

    def forward(self, x):
        for layer in self.plain_list:
            x = layer(x)
        return x

class Running(Plain):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(checkpoint(self.inner, x, use_reentrant=False))
"""
ANY = ["reverse-loop", "vectorize", "forward-mode", "forward-loop", "auto"]
REVERSE = ["reverse-loop", "vectorize", "auto"]
CASES = [
    *(("Adjoint", strategy) for strategy in REVERSE),
    *(("Checkpointed", strategy) for strategy in ANY),
    *(("Cached", strategy) for strategy in ANY),
    *(("CachedInADictionary", strategy) for strategy in ANY),
    *(("Hooked", strategy) for strategy in ANY),
    *(("SharedList", strategy) for strategy in ANY),
    *(("CachedInABuffer", strategy) for strategy in ANY),
    *(("ThroughAList", strategy) for strategy in ANY),
]
X = np.random.default_rng(0).standard_normal((5, 3))
TARGET = np.random.default_rng(1).standard_normal((5, 3))


@pytest.fixture
def model(directory: Path) -> Path:
    (directory / "model.py").write_text(MODEL)
    np.savez(directory / "data.npz", x=X, target=TARGET)
    np.save(directory / "x.npy", X)
    return directory


def reference() -> tuple[Callable[[dict[str, Tensor]], Tensor], dict[str, Tensor]]:
    """The plain network as a function of its parameters."""
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    parameters = {name: each.detach() for name, each in inner.named_parameters()}
    return lambda given: functional_call(inner, given, (torch.tensor(X),)), parameters


@pytest.mark.parametrize(("name", "strategy"), CASES)
def test_a_jacobian_by_parameters(model: Path, run_job: Run, name: str, strategy: str) -> None:
    result = run_job(
        "op=jacobian",
        "function=python",
        f"function.target=./model.py:{name}",
        "wrt=params",
        "inputs=numpy",
        "inputs.path=x.npy",
        f"strategy={strategy}",
    )
    function, parameters = reference()
    expected = torch.cat([each.flatten(2) for each in jacrev(function)(parameters).values()], 2)
    np.testing.assert_allclose(result[...], expected.reshape(15, -1), atol=1e-12)


@pytest.mark.parametrize("name", ["Checkpointed", "Cached", "CachedInADictionary", "Hooked"])
@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode"])
def test_a_hessian_of_a_loss(model: Path, run_job: Run, name: str, strategy: str) -> None:
    result = run_job(
        "op=hessian",
        "function=python",
        f"function.target=./model.py:{name}",
        "wrt=params",
        "loss=mse",
        "loss.reduction=sum",
        "loss.label=target",
        "loss.batch_size=2",
        "inputs=numpy",
        "inputs.path=data.npz",
        f"strategy={strategy}",
    )
    function, parameters = reference()
    blocks = hessian(lambda given: (function(given) - torch.tensor(TARGET)).square().sum())(
        parameters
    )
    rows = [
        torch.cat([block.reshape(parameters[row].numel(), -1) for block in columns.values()], 1)
        for row, columns in blocks.items()
    ]
    np.testing.assert_allclose(result[...], torch.cat(rows), atol=1e-10)


def test_checkpoints_beside_running_statistics(model: Path, run_job: Run) -> None:
    matrices = [
        run_job(
            "op=jacobian",
            "function=python",
            "function.target=./model.py:Running",
            "function.mode=train",
            "wrt=params",
            "wrt.pattern=inner.*",
            "inputs=numpy",
            "inputs.path=x.npy",
            f"strategy={strategy}",
        )[...]
        for strategy in ("reverse-loop", "vectorize")
    ]
    function, parameters = reference()

    def normed(given: dict[str, Tensor]) -> Tensor:
        output = function(given)
        variance = output.var(0, unbiased=False)
        return (output - output.mean(0)) / (variance + 1e-5).sqrt()

    expected = torch.cat([each.flatten(2) for each in jacrev(normed)(parameters).values()], 2)
    for matrix in matrices:
        np.testing.assert_allclose(matrix, expected.reshape(15, -1), atol=1e-10)
