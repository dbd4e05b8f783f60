"""Functions of several outputs, and the names of these."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import JobError
from outputs import Result
from tests.jobs.support.own_functions import of

Run = Callable[..., Result]


@pytest.mark.parametrize("name", ["several", "named", "both"])
@pytest.mark.parametrize("operation", ["vjp", "jvp"])
def test_products_of_several_outputs(operation: str, name: str, own: Path, run_job: Run) -> None:
    point = "points" if name == "both" else "point"
    result = run_job(*of(name, point), f"op={operation}", "strategy=vectorize", "vectors.count=2")
    matrix = run_job(*of(name, point))[...]
    vectors = np.concatenate([v.reshape(2, -1) for v in result.vectors.values()], axis=1)
    expected = vectors @ (matrix if operation == "vjp" else matrix.T)
    np.testing.assert_allclose(result[...], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("square", ["output"]),
        ("several", ["output0", "output1"]),
        ("named", ["z/b", "a c"]),
    ],
)
def test_outputs_have_names_in_the_file(
    name: str, rows: list[str], own: Path, run_job: Run
) -> None:
    result = run_job(*of(name))
    assert [tensor.name for tensor in result.rows] == list(result.value) == rows
    assert [tensor.name for tensor in result.columns] == list(result.points) == ["x"]
    assert result.function == f"own:{name}"
    for row in rows:
        assert result.block(row, "x").shape == (*result.value[row].shape, 3)


CONTAINERS = """
import collections
import dataclasses
from typing import NamedTuple

import attrs
import torch

class Pair(NamedTuple):
    square: torch.Tensor
    total: torch.Tensor

@dataclasses.dataclass
class Output(collections.OrderedDict):
    logits: torch.Tensor
    loss: torch.Tensor | None = None
    hidden_states: tuple | None = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is not None:
                self[field.name] = getattr(self, field.name)

@dataclasses.dataclass
class Record:
    logits: torch.Tensor
    parts: list
    nothing: object = None

@attrs.define
class Attributes:
    logits: torch.Tensor
    total: torch.Tensor

class Distribution:
    def __init__(self, mean): self.mean = mean

def pair(x): return Pair(x**2, x.sum())
def model_output(x): return Output(x**2, x.sum(), (x**3, x**4))
def unlabelled(x): return Output(x**2)
def record(x): return Record(x**2, [x**3, {"deep": x.sum(), "none": None}])
def attributes(x): return Attributes(x**2, x.sum())
def nested(x): return (x**2, (x**3, None, [x.sum()]))
def distribution(x): return Distribution(x**2)
def cached(x): return {"logits": x**2, "cache": Distribution(x)}
def maximum(x): return x.reshape(1, -1).max(dim=1)
"""

SQUARE, CUBE, FOURTH, TOTAL = 2 * np.eye(3), 3 * np.eye(3), 4 * np.eye(3), np.ones((1, 3))


@pytest.fixture
def containers(directory: Path) -> Path:
    (directory / "own.py").write_text(CONTAINERS + "\npoint = torch.ones(3)\n")
    return directory


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pair", {"square": SQUARE, "total": TOTAL}),
        (
            "model_output",
            {
                "logits": SQUARE,
                "loss": TOTAL,
                "hidden_states.0": CUBE,
                "hidden_states.1": FOURTH,
            },
        ),
        ("record", {"logits": SQUARE, "parts.0": CUBE, "parts.1.deep": TOTAL}),
        ("attributes", {"logits": SQUARE, "total": TOTAL}),
        ("nested", {"output0": SQUARE, "output1.0": CUBE, "output1.2.0": TOTAL}),
    ],
)
@pytest.mark.parametrize("strategy", ["forward-mode", "reverse-loop"])
def test_containers_are_flattened(
    strategy: str, name: str, expected: dict, containers: Path, run_job: Run
) -> None:
    result = run_job(*of(name), f"strategy={strategy}")
    assert [tensor.name for tensor in result.rows] == list(expected)
    assert result.verdict.state == "verified"
    np.testing.assert_allclose(result[...], np.concatenate([*expected.values()]))


@pytest.mark.parametrize(
    ("name", "output", "expected"),
    [
        ("pair", "total", TOTAL),
        ("pair", "1", TOTAL),
        ("pair", "-2", SQUARE),
        ("model_output", "logits", SQUARE),
        ("model_output", "hidden_states.1", FOURTH),
        ("model_output", "1", TOTAL),
        ("record", "parts.1.deep", TOTAL),
        ("nested", "1.2", TOTAL),
        ("distribution", "mean", SQUARE),
        ("cached", "logits", SQUARE),
        ("maximum", "values", np.eye(3)[:1]),
    ],
)
def test_one_output_is_chosen(
    name: str, output: str, expected: np.ndarray, containers: Path, run_job: Run
) -> None:
    result = run_job(*of(name), f"function.output={output}")
    np.testing.assert_allclose(result[...], expected)
    if expected is TOTAL:
        hessian = run_job(*of(name), f"function.output={output}", "op=hessian")
        assert hessian.shape == (3, 3)


@pytest.mark.parametrize(
    ("name", "more", "pattern"),
    [
        ("pair", ["function.output=sum"], "function.output=sum: valid are square, total"),
        ("pair", ["function.output=2"], "function.output=2: valid are 0, 1"),
        ("record", ["function.output=nothing"], "returns None as nothing; valid are logits, parts"),
        ("unlabelled", ["function.output=loss"], "returns None as loss; valid are logits$"),
        ("distribution", [], "neither a tensor .*function.output= chooses one of mean"),
        ("distribution", ["function.output=maen"], "valid are mean; did you mean mean"),
        ("cached", [], "returns cache of type Distribution; choose .*function.output=logits"),
        ("pair", ["op=hessian"], "returned 2 tensors; valid is one"),
    ],
)
def test_outputs_that_cannot_be_chosen_are_refused(
    name: str, more: list[str], pattern: str, containers: Path, run_job: Run
) -> None:
    with pytest.raises(JobError, match=pattern):
        run_job(*of(name), *more)


def test_the_chosen_output_is_a_part_of_the_fingerprint(containers: Path, resolved) -> None:
    jobs = [resolved(*of("pair"), *more) for more in ([], ["function.output=0"])]
    assert len({job.fingerprint for job in jobs}) == 2
