"""Jobs over many points: against torch.func at each of them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.errors import JobError
from jobs.streams.at_points import PointStream, values_of_points
from jobs.streams.stream import block_end
from outputs import VerificationState, open_result, part_path, verify_result
from outputs.merge import main as merge
from tests.support.pairs import pairs
from tests.support.processes import committed, start_job, wait_for

POINTS = 23
FUNCTIONS = """
import os, time
import torch

def matrix(n=3):
    return torch.arange(float(4 * n), dtype=torch.float64).reshape(4, n).sin()

def vector(x):
    return torch.tanh(matrix() @ x) * x.sum()

def scalar(x):
    return (torch.tanh(matrix() @ x) ** 3).sum()

def pair(x, scale):
    return {"a": torch.outer(x, x) * scale, "b": x.sum() / scale}

def branch(x):  # resists being batched
    return x**3 if x.sum() > 0 else -(x**2)

def rows(x):  # takes a batch only
    batch, width = x.shape
    return {"a": vector(x[0])[None], "b": x.sum(1)}

def flat(x):
    return x.flatten()

def default():
    return torch.arange(12.0, dtype=torch.float64).reshape(4, 3).cos()

def reduced(x):
    return (x**3).sum()

def undefined(x):
    return x / (x[1] != 0)

def dropped(x):
    return torch.nn.functional.dropout(x.sin(), 0.5).cumsum(0)

def noisy_one_by_one(x):
    return (x * torch.bernoulli(torch.full_like(x, 0.5))).sin().sum() ** 2

def slow(x):
    time.sleep(float(os.environ["SECONDS"]))
    return branch(x)
"""
Command = Callable[..., Any]


@pytest.fixture
def points(directory: Path) -> np.ndarray:
    (directory / "own.py").write_text(FUNCTIONS)
    values = np.random.default_rng(5).standard_normal((POINTS, 3))
    np.save("points.npy", values)
    return values


def options(name: str, *more: str) -> tuple[str, ...]:
    return (
        *("function=python", f"function.target=./own.py:{name}", "inputs=numpy"),
        *("inputs.path=points.npy", "points=leading", *more),
    )


def expected(name: str, points: np.ndarray, operation: str) -> np.ndarray:
    space: dict[str, Any] = {}
    exec(FUNCTIONS, space)
    derivative = torch.func.jacrev if operation == "jacobian" else torch.func.hessian
    matrices = [derivative(space[name])(torch.from_numpy(point)) for point in points]
    return torch.stack(matrices).reshape(len(points), -1, points.shape[1]).numpy()


@pytest.mark.parametrize(
    ("function", "strategy", "chunk_size"),
    pairs(
        ["vector jacobian", "scalar hessian", "scalar jacobian", "branch jacobian"],
        ["reverse-loop", "vectorize", "forward-mode", "auto"],
        ["auto", 1, 3, 8, 10**6],
    ),
)
def test_matrices_are_those_of_each_point(
    run_job: Callable[..., Any],
    points: np.ndarray,
    function: str,
    strategy: str,
    chunk_size: str | int,
) -> None:
    name, operation = function.split()
    result = run_job(
        *options(name, f"op={operation}", f"strategy={strategy}", f"chunk_size={chunk_size}")
    )
    matrices = expected(name, points, operation)
    assert result.shape == matrices.shape
    assert np.allclose(result[:], matrices, rtol=1e-13, atol=1e-13)
    report = verify_result(result.path)
    assert report.ok
    assert report.lines_checked == matrices.shape[0] * matrices.shape[1]


@pytest.mark.parametrize(
    ("name", "operation"),
    [("dropped", "jacobian"), ("noisy_one_by_one", "jacobian"), ("noisy_one_by_one", "hessian")],
)
@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode"])
def test_each_point_draws_the_random_numbers_that_it_draws_by_itself(
    run_job: Callable[..., Any], points: np.ndarray, name: str, operation: str, strategy: str
) -> None:
    result = run_job(*options(name, f"op={operation}", f"strategy={strategy}", "seed=3"))
    assert result.verdict.state is VerificationState.VERIFIED
    space: dict[str, Any] = {}
    exec(FUNCTIONS, space)
    derivative = getattr(torch.autograd.functional, operation)
    for point, matrix in zip(points, result[:], strict=True):
        torch.manual_seed(3)
        expected = derivative(space[name], torch.from_numpy(point))
        np.testing.assert_allclose(matrix, expected.reshape(matrix.shape), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("many", [True, False])
def test_a_function_of_a_batch_is_fed_a_batch_of_one(
    run_job: Callable[..., Any], points: np.ndarray, many: bool
) -> None:
    np.save("one.npy", points[0])
    given = () if many else ("points=single", "inputs.path=one.npy")
    (message,) = _refusal(run_job, options("rows", "op=jacobian", *given))
    assert "points.batched=true (with wrt=inputs) feeds it a point as a batch of one" in message
    result = run_job(*options("rows", "op=jacobian", "points.batched=true", *given))
    wanted = expected("vector", points, "jacobian")
    assert np.allclose(result.block("a", "x"), wanted if many else wanted[0])
    assert (result.block("b", "x") == 1).all()
    assert result.shape == ((23, 5, 3) if many else (5, 3))
    reduced = run_job(*options("reduced", "op=hessian", "points.batched=true", *given))
    shown = reduced[3] if many else reduced[:]
    assert np.allclose(shown, np.diag(6 * points[3 if many else 0]))


def _refusal(run_job: Callable[..., Any], options: tuple[str, ...]) -> list[str]:
    with pytest.raises(JobError) as caught:
        run_job(*options)
    return [str(caught.value)]


def test_the_default_point_holds_many_points(
    run_job: Callable[..., Any], points: np.ndarray
) -> None:
    given = ("function=python", "function.target=own:vector", "function.point=own:default")
    result = run_job(*given, "op=jacobian", "points=leading")
    space: dict[str, Any] = {}
    exec(FUNCTIONS, space)
    assert np.allclose(result[:], expected("vector", space["default"]().numpy(), "jacobian"))
    assert np.array_equal(result.points["x"], space["default"]())


def test_several_arguments_and_outputs(run_job: Callable[..., Any], points: np.ndarray) -> None:
    scale = np.random.default_rng(6).uniform(1, 2, POINTS)
    np.savez("points.npz", x=points, scale=scale)
    result = run_job(*options("pair", "op=jacobian", "inputs.path=points.npz"))
    assert result.shape == (POINTS, 10, 4)
    by_scale = result.block("a", "scale")
    assert by_scale.shape == (POINTS, 3, 3)
    assert np.allclose(by_scale, points[:, :, None] * points[:, None])
    assert np.allclose(result.block("b", "scale"), -points.sum(1) / scale**2)
    assert np.allclose(result.value["b"], points.sum(1) / scale)
    assert np.array_equal(result.points["x"], points)


def test_a_file_is_a_point(run_job: Callable[..., Any], points: np.ndarray) -> None:
    Path("many").mkdir()
    for number, point in enumerate(points):
        np.save(f"many/{number:02}.npy", point)
    result = run_job(
        *options("vector", "op=jacobian", "points=files", "inputs.path=many/*.npy"),
    )
    assert np.allclose(result[:], expected("vector", points, "jacobian"))


def test_shards_of_points_are_merged(command_line: Command, points: np.ndarray) -> None:
    job = options("vector", "op=jacobian", "strategy=vectorize", "chunk_size=5")
    finished = command_line("--multirun", *job, "shards=3", "shard=range(3)")
    assert finished.code == 0, finished.err
    assert merge([*map(str, Path("runs").rglob("*.h5")), "-o", "whole.h5"]) == 0
    with open_result("whole.h5") as result:
        assert np.allclose(result[:], expected("vector", points, "jacobian"))
    assert verify_result("whole.h5").ok


def test_what_was_killed_continues_with_the_next_point(
    command_line: Command, points: np.ndarray, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["op=jacobian", "strategy=reverse-loop"]
    words += [*options("slow", "chunk_size=6", "verify=off")]

    job = start_job(*words, SECONDS="0.1")
    wait_for(lambda: committed(directory) >= 6, job)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    (part,) = directory.glob("runs/*/*.part")
    before = part.stat().st_size
    assert committed(directory) < POINTS * 3
    monkeypatch.setenv("SECONDS", "0")
    again = command_line(*words)
    assert again.code == 0, again.err
    assert "resum" in again.err + again.out or "already" in again.err + again.out
    assert before
    with open_result(again.result) as result:
        assert not part_path(result.path).exists()
        assert np.allclose(result[:], expected("branch", points, "jacobian"))


def test_entries_that_are_not_finite_are_located(command_line: Command, points: np.ndarray) -> None:
    points[7, 1] = 0
    np.save("points.npy", points)
    finished = command_line(*options("undefined", "op=jacobian"))
    assert finished.code == 0
    assert "9 entries" in finished.err + finished.out
    with open_result(finished.result) as result:
        assert np.argwhere(~np.isfinite(result[:])).tolist() == [
            [7, i, j] for i in range(3) for j in range(3)
        ]
    assert command_line(*options("undefined", "op=hessian", "nonfinite=fail")).code == 1


def test_a_wrong_block_is_found(
    points: np.ndarray, run_job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = PointStream.block

    def wrong(self: PointStream, start: int, stop: int) -> Any:
        block = right(self, start, stop)
        if start <= 40 < stop:
            block.pieces[0][40 - start, 1] = 7
        return block

    monkeypatch.setattr(PointStream, "block", wrong)
    with pytest.raises(JobError, match="rows 36 to 48 disagree"):
        run_job(*options("vector", "op=jacobian", "chunk_size=12"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("points=all",), "points=all: valid are"),
        (("points=leading", "inputs=default"), "vector has no default point"),
        (("points.batched=true", "loss=own"), "points.batched=true wrt=inputs loss=own: a point"),
        (
            ("points=leading", "points.batched=true", "function.target=./own.py:flat"),
            "points.batched=true: for a batch of one flat returns the shape (3,)",
        ),
        (("points=leading", "op=hvp"), "op=hvp: many points go with op=jacobian, hessian"),
        (("points=leading", "verify=sample"), "verify=sample: many points"),
        (("points=leading", "output.tile=[4,4]"), "no output.tile"),
        (("points=files", "inputs=random"), "a file is a point here"),
        (("points=files", "inputs.path=none/*.npy"), "inputs.path=none/*.npy: there is no such"),
        (("points=leading", "inputs.path=scalar.npy"), "the same leading dimension over points"),
        (("points=leading", "inputs.path=empty.npy"), "of at least 1"),
    ],
)
def test_mistakes_are_reported(
    command_line: Command, points: np.ndarray, more: tuple[str, ...], message: str
) -> None:
    np.save("scalar.npy", 1.0)
    np.save("empty.npy", np.ones((0, 3)))
    own = ("op=jacobian", "function=python", "function.target=./own.py:vector")
    given = {each.partition("=")[0]: each for each in (*own, "inputs=numpy", *more)}
    given.setdefault("inputs.path", "inputs.path=points.npy")
    if given["inputs"] != "inputs=numpy":
        del given["inputs.path"]
    finished = command_line(*given.values())
    assert finished.code == 1
    assert message in finished.err
    assert "Traceback" not in finished.err


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("size", [1, 3, 4, 9, 100])
def test_a_block_lies_within_a_point_or_is_of_whole_ones(
    points: np.ndarray, unit: int, size: int
) -> None:
    inputs = (torch.from_numpy(points),)
    space: dict[str, Any] = {}
    exec(FUNCTIONS, space)
    function = space["vector"] if unit == 4 else space["scalar"]
    stream = PointStream(function, inputs, seed=0, operation="jacobian", strategy="vectorize")
    assert stream.unit == unit
    for start in range(3 * unit):
        stop = block_end(stream, start, size)
        assert start < stop <= start + size
        assert start // unit == (stop - 1) // unit or start % unit == stop % unit == 0


def test_a_failure_names_the_point_of_many_at_which_the_function_fails() -> None:
    def logarithm(x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() < 0):
            raise ValueError("a negative sum")
        return x.log()

    points = torch.ones(7, 3, dtype=torch.float64)
    points[5] = -1.0
    with pytest.raises(ValueError, match="a negative sum") as caught:
        values_of_points(logarithm, (points,), seed=0)
    assert caught.value.__notes__ == ["at point 5"]
