"""Arguments with defaults, arguments by name, and integers among them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import JobError
from jobs.job import Job
from outputs import Result

Resolve = Callable[..., Job]
Run = Callable[..., Result]

MODEL = """
import functools
import torch
from torch import nn

def scaled(x, mask=None, *, weight=None):
    y = x**2 if mask is None else torch.where(mask, x**2, 0)
    return y if weight is None else weight * y

def by_name_only(*, x, power): return power * x**2
def opened(x, **others): return x**2 * others.get("weight", torch.ones(()))
def positional(x, y=None, z=None, /): return x**2 if y is None else x * y
def counted(*xs, weight): return weight * sum(xs)
def typed(x, table): return table[x.round().long()].sum() * x
def make(table): return lambda x: table @ x
set_before = functools.partial(scaled, weight=2.0)

class Graph(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x=None, edge_index=None, weight=None, **options):
        source, target = edge_index
        messages = self.linear(x)[source] if weight is None else weight * self.linear(x)[source]
        return torch.zeros_like(x).index_add(0, target, messages)

class Data(nn.Module):
    def __init__(self, table):
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, x): return (self.table * x).sum(0)
"""

X = np.array([1.0, 2.0, 3.0])
MASK = np.array([True, False, True])
WEIGHT = np.array([0.5, 1.5, 2.5])


@pytest.fixture
def model(directory: Path) -> Path:
    (directory / "model.py").write_text(MODEL)
    return directory


def of(name: str, *more: str, **arrays: np.ndarray) -> list[str]:
    np.savez("point.npz", **arrays)  # pyright: ignore[reportArgumentType]
    target = ["op=jacobian", "function=python", f"function.target=./model.py:{name}"]
    return [*target, "inputs=numpy", "inputs.path=point.npz", *more]


@pytest.mark.parametrize(
    ("name", "arrays", "point", "expected"),
    [
        ("scaled", {"x": X}, ["x"], 2 * X),
        ("scaled", {"mask": MASK, "x": X}, ["x"], 2 * X * MASK),
        ("scaled", {"weight": WEIGHT, "x": X}, ["x", "weight"], [2 * X * WEIGHT, X**2]),
        ("by_name_only", {"power": WEIGHT, "x": X}, ["x", "power"], [2 * X * WEIGHT, X**2]),
        ("opened", {"x": X, "weight": WEIGHT}, ["x", "weight"], [2 * X * WEIGHT, X**2]),
        ("positional", {"y": WEIGHT, "x": X}, ["x", "y"], [WEIGHT, X]),
        ("counted", {"x": X, "weight": WEIGHT, "y": X}, ["x", "weight", "y"], [WEIGHT, 2 * X] * 2),
    ],
)
def test_arguments_are_bound_that_the_source_names(
    name: str, arrays: dict, point: list[str], expected: list, model: Path, run_job: Run
) -> None:
    result = run_job(*of(name, **arrays))
    assert [tensor.name for tensor in result.columns] == point
    blocks = [expected] if len(point) == 1 else expected
    for column, diagonal in zip(point, blocks, strict=False):
        found = np.asarray(result.block(result.rows[0].name, column))
        np.testing.assert_allclose(found, np.diag(diagonal), rtol=1e-12)


def test_a_module_whose_arguments_all_have_defaults(model: Path, run_job: Run) -> None:
    x, edges = np.arange(6.0).reshape(3, 2), np.array([[0, 1, 1], [1, 2, 2]])
    result = run_job(*of("Graph", "seed=3", x=x, edge_index=edges))
    assert [tensor.name for tensor in result.columns] == ["x"]
    assert result.verdict.state == "verified"
    torch.manual_seed(3)
    weight = torch.nn.Linear(2, 2).weight.detach().double().numpy()
    expected = np.zeros((3, 2, 3, 2))
    for source, target in edges.T:
        expected[target, :, source] += weight
    np.testing.assert_allclose(result.block("output", "x"), expected, rtol=1e-12)
    frozen = result.execution["conversions"]["frozen"]
    assert "inputs edge_index: integers are constants" in frozen
    parameters = run_job(*of("Graph", "seed=3", "wrt=params", x=x, edge_index=edges))
    assert [tensor.name for tensor in parameters.columns] == ["linear.weight", "linear.bias"]
    assert parameters.verdict.state == "verified"


def test_the_default_of_an_argument_may_be_a_part_of_the_default_point(
    model: Path, run_job: Run
) -> None:
    shapes = ("inputs=random", "inputs.shapes=[[3],[3],[3]]")
    target = ("op=jacobian", "function=python", "function.target=./model.py:positional")
    assert [tensor.name for tensor in run_job(*target, *shapes).columns] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("name", "arrays", "more", "pattern"),
    [
        ("scaled", {"mask": MASK}, [], r"holds mask; the function needs x and takes mask, weight"),
        ("scaled", {"x": X, "wieght": X}, [], r"also holds wieght, which may be meant for one"),
        ("set_before", {"x": X, "weight": X}, [], r"function.keywords.weight sets"),
        ("positional", {"x": X, "z": X}, [], r"z can only be given by position, so y is needed"),
        ("Graph", {"x": X, "edge_idnex": X}, [], r"also holds edge_idnex, which may be meant"),
        ("opened", {"weight": X, "x ": X}, [], r"holds weight, x ; the function needs x"),
        (
            "Graph",
            {"x": X, "edge_index": np.eye(2, dtype=int)},
            ["wrt.pattern=edge_index"],
            r"wrt.pattern=edge_index: edge_index \(.*point.npz.*\) holds int64",
        ),
        ("typed", {"x": np.arange(3), "table": MASK}, [], r"holds int64, .*floating-point"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    name: str, arrays: dict, more: list[str], pattern: str, model: Path, run_job: Run
) -> None:
    with pytest.raises(JobError, match=pattern):
        run_job(*of(name, *more, **arrays))


def test_numbers_written_without_a_point(model: Path, resolved: Resolve) -> None:
    target = ("op=jacobian", "function=python", "function.target=./model.py:typed")
    values = ("inputs=constants", "inputs.values.table=[1.0,2.0]")
    job = resolved(*target, *values, "inputs.values.x=[0,1]")
    assert list(job.point) == ["table"]
    (note,) = job.notes
    assert note.startswith("inputs.values.x holds integers, which are constants")
    named = resolved(*target, *values, "inputs.values.x=[0,1]", "wrt.pattern=x")
    assert named.point["x"].dtype == torch.float64
    alone = resolved(
        *target[:2], "function.target=./model.py:scaled", values[0], "inputs.values.x=[1]"
    )
    assert list(alone.point) == ["x"]


@pytest.mark.parametrize("name", ["make", "Data"])
def test_tensors_of_a_source_are_keyword_arguments(name: str, model: Path, run_job: Run) -> None:
    table = np.arange(6.0).reshape(2, 3)
    np.save("table.npy", table)
    options = ["function.factory=true"] if name == "make" else []
    keywords = "function.keywords.table={source: numpy, path: table.npy}"
    first = run_job(*of(name, *options, keywords, x=X))
    expected = table if name == "make" else np.diag(table.sum(0))
    np.testing.assert_allclose(first[...], expected)
    # The content of the file is a part of what identifies the job.
    np.save("table.npy", 2 * table)
    second = run_job(*of(name, *options, keywords, x=X))
    np.testing.assert_allclose(second[...], 2 * expected)
    assert first.fingerprint != second.fingerprint
