"""Errors that are small beside a derivative, or that only a function's past shows, are found."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import JobError
from jobs.job import Job
from jobs.verification.differences import compare_with_differences
from jobs.verification.routes import Routes
from outputs import Result

Run = Callable[..., Result]
Resolve = Callable[..., Job]

FUNCTIONS = """
import functools

import torch
from torch import nn

def _sine(rate, factor):
    class Sine(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (rate * x).sin()

        @staticmethod
        def backward(ctx, cotangent):
            (x,) = ctx.saved_tensors
            return cotangent * rate * (rate * x).cos() * factor(x)

    return Sine.apply

class _Narrow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.float().pow(3).to(x.dtype)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return (cotangent.float() * 3 * x.float().square()).to(x.dtype)

def narrow_energy(x): return _Narrow.apply(x).sum() + x.prod()

def _in_one_entry(x):
    return torch.where(torch.arange(x.numel()) == 2, 1.01, 1.0).to(x)

_one_entry, _rapid = _sine(1.0, _in_one_entry), _sine(1000.0, lambda x: 1.01)

def one_entry(x): return _one_entry(x)
def one_entry_energy(x): return _one_entry(x).sum() + x.square().sum()
def rapid(x): return _rapid(x)
def small_row(x): return torch.cat([1e9 * x.sin(), 1e-6 * x[:1].detach() * x[:1]])
def small_tensor(x, y): return 1e3 * x.sin() + 10 * y * y.detach()
def lost_tensor(x, y): return x.sin() * y.detach() + 3e5 * x + 1e-30 * y
def small_rows_and_columns(x, y): return torch.cat([1e6 * x.sin(), 1e-4 * x, 1e-3 * y**3])

def _columns(x, size):
    weights = torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).to(x)
    return (weights * torch.where(torch.arange(6) == 2, size, 1.0).to(x) @ x).tanh()

class _TwiceInOneEntry(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.clone()

    @staticmethod
    def backward(ctx, cotangent): return cotangent * (1 + (torch.arange(6) == 2))

def small_column(x): return _columns(x, 1e-9)
def wrong_small_column(x): return _columns(_TwiceInOneEntry.apply(x), 1e-9)
def tiny_column(x): return _columns(x, 1e-20)
def wrong_tiny_column(x): return _columns(_TwiceInOneEntry.apply(x), 1e-20)
def invariant(x, y): return (x + y.sum()).softmax(0)

# Attention, whose keys may all be moved: the gradient by y is zero up to rounding.
def attention(x, y):
    weights = (3 * x[:, None] * (x + y.sum())).softmax(1)
    return (weights @ x.sin()).square().sum()

def wrong_attention(x, y): return attention(x, y) + 1e-2 * (y - y.detach()).square().sum()

class Recurrent(nn.Module):
    # Refuses an input of another dtype than its weights.
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.RNN(6, 4)

    def forward(self, x): return self.cell(x[None])[0].square().sum()

class OneEntry(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 6)

    def forward(self, x): return _one_entry(self.linear(x))

class Right(OneEntry):
    def forward(self, x): return self.linear(x).sin()

def at_some_points(x): return torch.where(x[0] < 1, x.sin(), x.sin().detach())
def at_all_points(x): return torch.where(x[0] < 1, x.sin(), x.cos())
def energy_at_some_points(x): return (at_some_points(x) * x).sum()
def energy_at_all_points(x): return (at_all_points(x) * x).sum()

_table, _last = {}, None

def in_a_variable(x):
    global _last
    if _last is None:
        _last = x.detach() ** 2
    return _last * x

def in_a_default(x, found=[]):
    if not found:
        found.append(x.detach() ** 2)
    return found[0] * x

class Squares:
    shared = None

    def __init__(self):
        self.own = {}

    def __call__(self, x):
        if "x" not in self.own:
            self.own["x"] = x.detach() ** 2
        return self.own["x"] * x

class SharedSquares(Squares):
    def __call__(self, x):
        if Squares.shared is None:
            Squares.shared = x.detach() ** 2
        return Squares.shared * x

in_an_object, in_a_class = Squares(), SharedSquares()

class InAnObject(nn.Module):
    def __init__(self):
        super().__init__()
        self.squares = Squares()

    def forward(self, x): return self.squares(x)

def in_a_closure():
    found = None
    def function(x):
        nonlocal found
        if found is None:
            found = x.detach() ** 2
        return found * x
    return function

@functools.lru_cache
def _grid(count): return torch.arange(count)

def harmless(x):
    _table["calls"] = _table.get("calls", 0) + 1
    _table.setdefault("grid", _grid(x.numel()))
    return _table["grid"] * x.sin()
"""
POINT = np.array([0.3, -1.2, 0.8, 2.1, -0.4, 0.9])


@pytest.fixture(autouse=True)
def hidden(directory: Path) -> None:
    (directory / "hidden.py").write_text(FUNCTIONS)
    np.save("x.npy", POINT)
    np.savez("two.npz", x=POINT, y=1e-3 * POINT)
    np.save("points.npy", np.stack([POINT, 0.5 * POINT, POINT + 1]))


def of(name: str, *more: str, operation: str = "jacobian") -> list[str]:
    return [
        f"op={operation}",
        "function=python",
        f"function.target=./hidden.py:{name}",
        "inputs=numpy",
        "inputs.path=x.npy",
        "strategy=reverse-loop",
        *more,
    ]


def states(job: Job) -> set[str]:
    return {each.state for each in compare_with_differences(Routes(job))}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("one_entry", ()),
        ("one_entry_energy", ("op=hessian",)),
        ("rapid", ()),
        ("small_row", ()),
        ("small_tensor", ("inputs.path=two.npz",)),
        ("lost_tensor", ("inputs.path=two.npz",)),
        ("wrong_small_column", ()),
        ("wrong_attention", ("op=hessian", "inputs.path=two.npz")),
        ("OneEntry", ()),
        ("OneEntry", ("wrt=params",)),
    ],
)
def test_a_small_part_does_not_hide(
    resolved: Resolve, name: str, more: tuple[str, ...], dtype: str
) -> None:
    assert "contradicted" in states(resolved(*of(name, f"dtype={dtype}", *more)))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("small_rows_and_columns", ("inputs.path=two.npz",)),
        ("small_column", ()),
        # Zero, up to rounding.
        ("invariant", ("inputs.path=two.npz",)),
        ("attention", ("op=hessian", "inputs.path=two.npz")),
        ("Right", ()),
        ("Right", ("wrt=params",)),
        ("Recurrent", ("wrt=params",)),
    ],
)
def test_small_parts_that_are_right_agree(
    resolved: Resolve, name: str, more: tuple[str, ...], dtype: str
) -> None:
    assert states(resolved(*of(name, f"dtype={dtype}", *more))) == {"agree"}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ["tiny_column", "wrong_tiny_column"])
def test_what_rounding_hides_is_verified_in_part_only(run_job: Run, name: str, dtype: str) -> None:
    verdict = run_job(*of(name, f"dtype={dtype}")).verdict
    assert verdict.state == "partly verified"
    assert "1 of the 6 entries of the point have so little effect" in verdict.reason


def test_a_custom_backward_is_widened_too(resolved: Resolve) -> None:
    job = resolved(*of("narrow_energy", "dtype=float32", operation="hessian"))
    for found in compare_with_differences(Routes(job)):
        assert found.agrees_to is not None
        assert found.agrees_to < 1e-8


@pytest.mark.parametrize(
    ("name", "operation", "state"),
    [
        ("at_some_points", "jacobian", "contradicted"),
        ("energy_at_some_points", "hessian", "contradicted"),
        ("at_all_points", "jacobian", "agree"),
        ("energy_at_all_points", "hessian", "agree"),
    ],
)
def test_all_of_many_points_are_compared(
    resolved: Resolve, name: str, operation: str, state: str
) -> None:
    more = ("points=leading", "inputs.path=points.npy")
    assert state in states(resolved(*of(name, *more, operation=operation)))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("in_a_variable", ()),
        ("in_a_default", ()),
        ("in_an_object", ()),
        ("in_a_class", ()),
        ("InAnObject", ()),
        ("in_a_closure", ("function.factory=true",)),
    ],
)
def test_what_an_earlier_call_has_stored_is_found(
    run_job: Run, name: str, more: tuple[str, ...]
) -> None:
    with pytest.raises(JobError, match=r"depends on its earlier calls: .* Look for caches"):
        run_job(*of(name, *more))


def test_stored_values_without_effect_are_no_error(resolved: Resolve) -> None:
    assert states(resolved(*of("harmless"))) == {"agree"}
