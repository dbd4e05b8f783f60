"""What a job casts and freezes is in its record; what is not exact is a note in the plan."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import ConfigurationError
from jobs.functions.conversions import _changed
from jobs.job import Job
from outputs import Result

Run = Callable[..., Result]

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 2).half()
        self.second.requires_grad_(False)
        self.register_buffer("table", torch.full((3,), 0.1, dtype=torch.float64))

    def forward(self, x):
        return self.second(torch.tanh(self.first(x) * self.table))

def square(x): return x**2
def dropping(x): return (x * (1 + 2j)).to(x.dtype) + x
"""


@pytest.fixture
def net(directory: Path) -> Path:
    (directory / "net.py").write_text(MODEL)
    np.save(directory / "x.npy", np.array([0.1, 0.5, 0.3]))
    return directory


def of(name: str, *more: str, path: str = "x.npy") -> list[str]:
    target = ["function=python", f"function.target=./net.py:{name}"]
    return ["op=jacobian", *target, "inputs=numpy", f"inputs.path={path}", *more]


def test_casts_and_frozen_parameters_of_a_module(net: Path, run_job: Run) -> None:
    found = run_job(*of("Net")).execution
    assert found["conversions"] == {
        "cast": [
            "parameters first.weight, first.bias: float32 -> float64",
            "parameters second.weight, second.bias: float16 -> float64",
        ],
        "frozen": [
            "parameters first.weight, first.bias: constants of this job",
            "parameters second.weight, second.bias: required no gradient already",
        ],
    }
    assert found["notes"] == []


def test_what_is_not_exact_is_a_note_in_the_plan(net: Path, run_job: Run, said) -> None:
    found = run_job(*of("Net", "wrt=params", "dtype=float32")).execution
    notes = [
        "converted: buffers table: float64 -> float32 (not exact in 3 entries)",
        "converted: constants x: float64 -> float32 (not exact in 2 entries)",
    ]
    assert found["notes"] == notes
    assert all(f"note: {note}" in said.getvalue() for note in notes)
    assert found["conversions"]["frozen"] == [
        "parameters second.weight, second.bias: required no gradient already"
    ]


def test_integers_beyond_what_a_float_holds(net: Path, run_job: Run) -> None:
    written = ("inputs=constants", f"inputs.values.x=[{2**53 + 1},5]")
    found = run_job(*of("square")[:3], *written).execution
    assert found["notes"] == [
        "converted: inputs x: int64 -> float64 (not exact in 1 entry)",
    ]


@pytest.mark.filterwarnings("default:Casting complex values")
def test_imaginary_parts_that_the_function_drops_are_a_note(net: Path, run_job: Run) -> None:
    result = run_job(*of("dropping", "strategy=vectorize"))
    (note,) = result.execution["notes"]
    assert note.startswith("the function drops imaginary parts in ")
    assert note.endswith(f"net.py:{MODEL.splitlines().index(MODEL.splitlines()[-1]) + 1}")
    np.testing.assert_allclose(result[...], 2 * np.eye(3))


@pytest.mark.parametrize(
    ("values", "dtype", "changed"),
    [
        ([0.1, 0.5, float("nan")], torch.float32, 1),
        ([0.1, 0.5], torch.float64, 0),
        ([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1], torch.float64, 3),
        ([2**24 + 1], torch.float32, 1),
        ([True], torch.float32, 0),
        ([0.1 + 0.5j], torch.complex64, 1),
    ],
)
def test_values_that_another_dtype_does_not_hold(
    values: list[object], dtype: torch.dtype, changed: int
) -> None:
    kind = {float: torch.float64, complex: torch.complex128}.get(type(values[0]))  # pyright: ignore
    assert _changed(torch.tensor(values, dtype=kind), dtype) == changed


def test_complex_weights_of_a_real_module_are_refused(
    net: Path, resolved: Callable[..., Job]
) -> None:
    weights = {"weight": torch.ones(2, 3, dtype=torch.complex64), "bias": torch.zeros(2)}
    torch.save(weights, net / "weights.pt")
    with pytest.raises(ConfigurationError, match="weight is complex in the file and real"):
        resolved(
            *("op=jacobian", "function=python", "function.target=torch.nn:Linear"),
            *("function.keywords.in_features=3", "function.keywords.out_features=2"),
            *("function.weights=weights.pt", "inputs=numpy", "inputs.path=x.npy"),
        )
