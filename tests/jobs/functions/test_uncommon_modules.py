"""Modules with more than tensors in their state, lazy and scripted ones, exported programs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call, jacrev

from jobs.errors import JobError
from jobs.job import Job
from outputs import Result

Resolve = Callable[..., Job]
Run = Callable[..., Result]

MODEL = """
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return torch.tanh(self.linear(x))

class Scaled(Plain):
    scale = 2.0

    def get_extra_state(self):
        return {"scale": self.scale, "units": "eV"}

    def set_extra_state(self, state):
        self.scale = state["scale"]

    def forward(self, x):
        return self.scale * super().forward(x)

class Unpicklable(Plain):
    def get_extra_state(self):
        return lambda: None

class Lazy(Plain):
    def __init__(self):
        super().__init__()
        self.linear = nn.LazyLinear(2)

def called():
    module = Lazy()
    torch.manual_seed(0)
    module(torch.zeros(3))
    return module

def scripted():
    return torch.jit.script(Plain())
"""
POINT = [0.5, -1.0, 2.0]


def options(target: str, *more: str, factory: bool = False) -> list[str]:
    named = f"function.target={target if ':' in target else f'./model.py:{target}'}"
    point = ["inputs=constants", "inputs.values.x=[0.5,-1.0,2.0]"]
    return ["function=python", named, *point, f"function.factory={factory}", *more]


@pytest.fixture
def plain(directory: Path) -> torch.nn.Module:
    """Write the user's files; return the module that they define, in double precision."""
    (directory / "model.py").write_text(MODEL)
    names: dict = {"__name__": "model"}
    exec(MODEL, names)
    module = names["Plain"]()
    exported = torch.export.export(module, (torch.zeros(3),))
    torch.export.save(exported, directory / "plain.pt2")
    state = names["Scaled"]().state_dict()
    torch.save(state, directory / "scaled.pt")
    torch.save({**state, "_extra_state": {"scale": 5.0}}, directory / "five.pt")
    torch.save({**state, "_extra_state": {"factor": 5.0}}, directory / "other.pt")
    return module.double()


def by_parameters(module: torch.nn.Module) -> np.ndarray:
    x = torch.tensor(POINT, dtype=torch.float64)
    parameters = {name: each.detach() for name, each in module.named_parameters()}
    blocks = jacrev(lambda p: functional_call(module, p, (x,)))(parameters)
    return torch.cat([each.reshape(2, -1) for each in blocks.values()], dim=1).numpy()


PROGRAM = ("torch.export:load", "function.keywords.f=plain.pt2")


@pytest.mark.parametrize(
    ("given", "factor"),
    [
        (options("Scaled"), 2),
        (options("Scaled", "function.weights=scaled.pt"), 2),
        (options("Scaled", "function.weights=five.pt"), 5),
        (options("called", factory=True), 1),
        (options(*PROGRAM, factory=True), 1),
    ],
    ids=["extra state", "from a file", "another state", "lazy, called once", "exported program"],
)
def test_derivatives_by_parameters(
    given: list[str], factor: float, plain: torch.nn.Module, run_job: Run
) -> None:
    result = run_job("op=jacobian", "wrt=params", *given)
    np.testing.assert_allclose(result[...], factor * by_parameters(plain), rtol=1e-12)


@pytest.mark.usefixtures("plain")
def test_another_extra_state_makes_another_job(resolved: Resolve) -> None:
    given = [options("Scaled", f"function.weights={each}.pt") for each in ("scaled", "five")]
    first, second, again = (resolved("op=jacobian", *each) for each in (*given, given[0]))
    assert first.fingerprint == again.fingerprint != second.fingerprint


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (options("Lazy"), "linear.weight of this lazy module gets its shape and values"),
        (options("scripted", factory=True), "a module of torch.jit, whose parameters cannot be"),
        (options("./plain.pt2:x"), "valid is a file that ends in .py"),
        (options("Unpicklable"), "_extra_state of type function, which cannot be pickled"),
        (options("Scaled", "function.weights=other.pt"), "does not take this state: 'scale'"),
        (options(*PROGRAM, "function.mode=train", factory=True), "the mode in which it was exp"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    given: list[str], message: str, resolved: Resolve
) -> None:
    with pytest.raises(JobError, match=message) as caught:
        resolved("op=jacobian", *given)
    assert "\n" not in str(caught.value)


def test_the_message_about_a_program_says_how_it_is_loaded(resolved: Resolve) -> None:
    with pytest.raises(JobError, match=r"torch\.export:load function\.factory=true"):
        resolved("op=jacobian", "function=python", "function.target=./plain.pt2")
