"""A loss over the batches that an iterable gives: the same numbers as over all data at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import jobs
from jobs.errors import ConfigurationError, JobError
from outputs import Result

Run = Callable[..., Result]

DATA = """
import itertools
import torch
from torch.utils.data import DataLoader, TensorDataset

x = torch.arange(33.0).reshape(11, 3).sin()
y = torch.arange(22.0).reshape(11, 2).cos()
dataset = TensorDataset(x, y)
loader = DataLoader(dataset, batch_size=4)
shuffled = DataLoader(dataset, batch_size=4, shuffle=True)
own_order = DataLoader(dataset, batch_size=4, shuffle=True, generator=torch.Generator())
batches = [{"label": y[i : i + 4].numpy(), "x": x[i : i + 4]} for i in range(0, 11, 4)]

def made(): yield from loader
def endless(): return itertools.cycle([(x, y)])
def failing():
    yield x, y
    raise ValueError("disk gone")

class Longer(list):
    def __len__(self): return 2

once = made()
longer = Longer(loader)
empty = []
mixed = [(x, y), {"x": x}]
words = [("a", y)]
unlabelled = [{"x": x}]
surplus = [{"x": x, "label": y, "idx": x}]
three = [(x, x, y)]
infinite = [(x / 0, y)]
number = 5

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)
    def forward(self, x): return torch.tanh(self.linear(x))

def own(theta, x, y): return ((x @ theta - y[:, 0]) ** 2).mean()
"""


@pytest.fixture
def data(directory: Path) -> dict[str, Any]:
    (directory / "own.py").write_text(DATA)
    space: dict[str, Any] = {}
    exec(DATA, space)
    np.savez(directory / "whole.npz", x=space["x"].numpy(), label=space["y"].numpy())
    return space


def options(*more: str) -> tuple[str, ...]:
    function = ("function=python", "function.target=./own.py:Net", "wrt=params", "loss=mse")
    return ("op=hessian", *function, *more)


def test_batches_give_what_the_whole_gives(run_job: Run, data: dict[str, Any]) -> None:
    whole = run_job(*options("inputs=numpy", "inputs.path=whole.npz"))
    paths = set()
    for name in ("loader", "shuffled", "batches", "made"):
        result = run_job(*options(f"function.data=./own.py:{name}"))
        np.testing.assert_allclose(result[:], whole[:], rtol=1e-7, atol=1e-9)
        assert result.verdict.state == "verified"
        paths.add(result.path)
    # The order and the names of their arrays make other jobs; how they are made does not.
    assert len(paths) == 3
    given = ("function.data=./own.py:dataset", "loss.batch_size=5", "loss.reduction=sum")
    result = run_job(*options(*given))
    np.testing.assert_allclose(result[:], 22 * whole[:], rtol=1e-7, atol=1e-9)


def test_the_point_is_an_input_and_the_batches_are_constants(
    run_job: Run, data: dict[str, Any]
) -> None:
    inputs = ("inputs=constants", "inputs.values.theta=[1.0,2.0,3.0]", "loss=own")
    target = ("op=hessian", "function=python", "function.target=./own.py:own")
    result = run_job(*target, *inputs, "function.data=./own.py:loader")
    x = data["x"].double()
    np.testing.assert_allclose(result[:], 2 * x.T @ x / 11, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dataset", "a dataset of samples; loss.batch_size= says how many make a batch"),
        ("own_order", "batch 0 is another one when the batches are read again"),
        ("once", "this generator can be read only once"),
        ("endless", "more than 100 batches, and no length"),
        ("longer", "more than 2 batches, its length, so that it may have no end"),
        ("failing", "reading batch 1 failed with ValueError: disk gone"),
        ("empty", "there is no batch"),
        ("mixed", "batch 1 holds x, and those before hold x, label"),
        ("words", r"batch 0\[0\]: this is of type str"),
        ("unlabelled", "the batches hold x, and label is needed as well"),
        ("surplus", "holds x, label, idx; the function needs x, label"),
        ("three", "batch 0 holds 3 arrays; Net needs x, label"),
        ("infinite", "x holds 33 values that are not finite"),
        ("number", "this is of type int; valid is an iterable of batches"),
        ("absent", "absent"),
    ],
)
def test_what_is_no_data_is_refused(
    name: str, message: str, run_job: Run, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.functions.batches._LARGEST_COUNT", 100)
    with pytest.raises(JobError, match=message):
        run_job(*options(f"function.data=./own.py:{name}"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("loss.batch_size=5",), "loss.batch_size=5: this makes batches itself"),
        (("loss=none",), "function.data=./own.py:loader loss=none: batches are the data of a loss"),
        (("inputs=numpy", "inputs.path=whole.npz"), "inputs: the source holds x, label"),
        (("loss.label=z", "function.data=./own.py:batches"), "and z is needed as well"),
    ],
)
def test_options_that_do_not_go_with_data(
    more: tuple[str, ...], message: str, run_job: Run, data: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        run_job(*options("function.data=./own.py:loader", *more))


def test_batches_that_change_while_a_job_computes_are_refused(directory: Path) -> None:
    x, y = torch.rand(6, 3), torch.rand(6, 2)
    net = torch.nn.Linear(3, 2)
    loader = DataLoader(TensorDataset(x, y), batch_size=2)
    given: dict[str, Any] = {"wrt": "params", "loss": "mse", "dtype": "float64"}
    with jobs.compute("hessian", net, data=loader, **given) as result:
        assert isinstance(result, Result)
        found = result[:]
    with jobs.compute("hessian", net, {"input": x, "label": y}, **given) as result:
        assert isinstance(result, Result)
        np.testing.assert_allclose(found, result[:], rtol=1e-12, atol=1e-15)
    passes = iter(range(1000))

    class Drifting:
        def __iter__(self) -> Any:
            drift = max(0, next(passes) - 2)
            yield x, y
            yield x + drift, y

    with pytest.raises(JobError, match="Drifting: batch 1 is another one when"):
        jobs.compute("hessian", net, data=Drifting(), **given)
    with pytest.raises(ConfigurationError, match="data: function=mlp is a built-in problem"):
        jobs.compute("hessian", "mlp", data=loader, **given)
