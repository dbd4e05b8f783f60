"""Jobs at points of different sizes: against torch.func at each of them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jobs
from jobs.errors import JobError
from jobs.functions.ragged import RaggedFunction
from jobs.job import Job
from jobs.reporting.summary import summary_of
from jobs.streams.ragged import RaggedStream
from jobs.streams.stream import block_end
from outputs import Result, ResultError, open_result, part_path, verify_result
from outputs.export import main as export
from outputs.show import main as show
from tests.support.processes import committed, start_job, wait_for

SIZES = [4, 6, 2, 5, 6]
FUNCTIONS = """
import os, time
import torch

def energy(positions, numbers):
    i, j = torch.triu_indices(len(positions), len(positions), offset=1)
    distances = (positions[i] - positions[j]).norm(dim=1)
    return (numbers[i] * numbers[j] * torch.exp(-distances)).sum()

def charges(positions, numbers):
    time.sleep(float(os.environ.get("SECONDS", "0")))
    overlaps = torch.exp(-(positions[:, None] - positions - 0.1).norm(dim=2))
    return {"charges": (numbers[:, None] * overlaps).sum(1), "total": overlaps.sum()}

def scaled(positions, scale):
    return (positions**3).sum() * scale + torch.outer(positions[0], scale[None]).sum() ** 2

def batched(positions, numbers):
    batch, atoms, _ = positions.shape
    return (numbers[..., None] * positions**3).sum((1, 2))

def of_few(positions, numbers):
    if len(numbers) == 5:
        raise ValueError("too many atoms")
    return energy(positions, numbers)

def named_by_size(positions, numbers):
    return {f"{len(numbers)}": positions.sum()}
"""
Run = Callable[..., Result]


@pytest.fixture
def molecules(directory: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    (directory / "own.py").write_text(FUNCTIONS)
    generator = np.random.default_rng(1)
    (directory / "mols").mkdir()
    found = []
    for number, size in enumerate(SIZES):
        positions = generator.uniform(0, 4, (size, 3))
        numbers = generator.integers(1, 9, size)
        np.savez(f"mols/{number}.npz", positions=positions, numbers=numbers)
        found.append((torch.from_numpy(positions), torch.from_numpy(numbers)))
    positions, numbers = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    np.savez("all.npz", positions=positions, numbers=numbers)
    np.save("offsets.npy", np.cumsum([0, *SIZES]))
    return found


def options(name: str, *more: str) -> tuple[str, ...]:
    files = ("inputs=numpy", "inputs.path=mols/*.npz", "points=files")
    return ("function=python", f"function.target=./own.py:{name}", *files, *more)


def function(name: str) -> Callable[..., Any]:
    space: dict[str, Any] = {}
    exec(FUNCTIONS, space)
    return space[name]


@pytest.mark.parametrize("strategy", ["auto", "reverse-loop", "forward-mode"])
@pytest.mark.parametrize("chunk_size", ["auto", 5])
def test_hessians_are_those_of_each_point(
    strategy: str, chunk_size: object, molecules: list[Any], run_job: Run
) -> None:
    more = ("op=hessian", f"strategy={strategy}", f"chunk_size={chunk_size}")
    result = run_job(*options("energy", *more))
    assert result.verdict.state == "verified"
    assert result.point_count == len(SIZES)
    for number, (positions, numbers) in enumerate(molecules):
        found = result.point(number)
        wanted = torch.func.hessian(function("energy"))(positions, numbers)
        np.testing.assert_allclose(found.block("positions", "positions"), wanted, atol=1e-12)
        assert np.array_equal(found.point["positions"], positions)
        np.testing.assert_allclose(found.value["output"], function("energy")(positions, numbers))
    assert np.array_equal(result.point(-1)[:], result.point(4)[:])


def test_jacobians_by_offsets_with_several_outputs(molecules: list[Any], run_job: Run) -> None:
    given = ("points=offsets", "points.offsets=offsets.npy", "inputs.path=all.npz")
    result = run_job(*options("charges", "op=jacobian", *given))
    for number, (positions, numbers) in enumerate(molecules):
        wanted = torch.func.jacrev(function("charges"))(positions, numbers)
        for name in ("charges", "total"):
            found = result.point(number).block(name, "positions")
            np.testing.assert_allclose(found, wanted[name], atol=1e-12)
            value = result.point(number).value[name]
            np.testing.assert_allclose(value, function("charges")(positions, numbers)[name])
    assert verify_result(result.path).problems == ()


def test_the_same_points_from_a_program(molecules: list[Any], directory: Path) -> None:
    positions, numbers = (torch.cat(parts) for parts in zip(*molecules, strict=True))
    point = {"positions": positions, "numbers": numbers}
    offsets = np.cumsum([0, *SIZES]).tolist()
    given: dict[str, Any] = {"points": {"by": "offsets", "offsets": offsets}}
    with jobs.compute("hessian", function("energy"), point, **given) as result:
        assert isinstance(result, Result)
        wanted = torch.func.hessian(function("energy"))(*molecules[2])
        np.testing.assert_allclose(result.point(2)[:], wanted.reshape(6, 6), atol=1e-12)


@pytest.mark.parametrize("step", [0, 1])
def test_points_of_one_size_are_stacked_whatever_their_constants(
    step: int, molecules: list[Any], run_job: Run
) -> None:
    generator = np.random.default_rng(3)
    positions = generator.uniform(0, 4, (3, 3, 3))
    for number, each in enumerate(positions):
        np.savez(f"mols/same{number}.npz", positions=each, numbers=np.arange(1, 4) + step * number)
    result = run_job(*options("energy", "op=hessian", "inputs.path=mols/same*.npz"))
    assert result.shape == (3, 9, 9)
    assert not result.is_ragged
    assert result.verdict.state == "verified"
    for number, each in enumerate(torch.from_numpy(positions)):
        numbers = torch.arange(1, 4) + step * number
        wanted = torch.func.hessian(function("energy"))(each, numbers)
        np.testing.assert_allclose(result.point(number)[:], wanted.reshape(9, 9), atol=1e-12)


def test_constants_chosen_by_a_pattern_and_batches_of_one(
    molecules: list[Any], run_job: Run
) -> None:
    batched = run_job(*options("batched", "op=hessian", "points.batched=true"))
    positions, numbers = molecules[1]
    diagonal = (6 * numbers[:, None] * positions).reshape(-1)
    np.testing.assert_allclose(batched.point(1)[:], torch.diag(diagonal), atol=1e-12)
    for number, (positions, _) in enumerate(molecules):
        np.savez(f"mols/s{number}.npz", positions=positions, scale=np.float64(number + 1))
    given = ("inputs.path=mols/s*.npz", "wrt.pattern=positions", "op=hessian")
    result = run_job(*options("scaled", *given))
    wanted = torch.func.hessian(function("scaled"))(molecules[3][0], torch.tensor(4.0).double())
    np.testing.assert_allclose(result.point(3)[:], wanted.reshape(15, 15), atol=1e-9)
    assert [spec.name for spec in result.point(3).columns] == ["positions"]
    both = run_job(*options("scaled", "inputs.path=mols/s*.npz", "op=hessian"))
    assert both.point(3).block("scale", "positions").shape == (5, 3)
    assert both.verdict.state == "verified"


def test_a_killed_job_resumes_to_the_same_bytes(
    molecules: list[Any], command_line: Callable[..., Any], directory: Path
) -> None:
    given = ("op=jacobian", "strategy=reverse-loop", "chunk_size=2")
    process = start_job(*options("charges", *given), SECONDS="0.03")
    wait_for(lambda: committed(directory) > 3, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 3 < committed(directory) < 28
    killed = command_line(*options("charges", *given))
    whole = command_line(*options("charges", *given, "runs=whole"))
    assert (killed.code, whole.code) == (0, 0)
    with open_result(whole.result) as first, open_result(killed.result) as second:
        assert not part_path(killed.result).exists()
        for number in range(len(SIZES)):
            assert np.array_equal(first.point(number)[:], second.point(number)[:])


def test_a_wrong_entry_is_found(
    molecules: list[Any], run_job: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = RaggedStream.block

    def wrong(self: RaggedStream, start: int, stop: int) -> Any:
        block = right(self, start, stop)
        if start <= 20 < stop:
            block.pieces[0][20 - start, 1] += 1
        return block

    monkeypatch.setattr(RaggedStream, "block", wrong)
    with pytest.raises(JobError, match="rows 12 to 30 disagree with an independent product"):
        run_job(*options("energy", "op=hessian", "strategy=vectorize", "chunk_size=18"))


def test_commands_know_the_file_or_refuse_it(
    molecules: list[Any], run_job: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_job(*options("energy", "op=hessian")) as result:
        summary = summary_of(result.path.parent, result.path.parents[1])
        assert "5 points of different sizes, 69 rows" in summary.matrix
        assert show([str(result.path)]) == 0
        assert "5 points of different sizes, 69 rows in all" in capsys.readouterr().out
        assert "different sizes" in result._repr_html_()
        for read in (
            lambda: result[0],
            result.as_xarray,
            result.as_torch,
            result.as_linear_operator,
            result.plot,
            lambda: result.block("positions", "positions"),
        ):
            with pytest.raises(ResultError, match=r"different sizes; result.point\(0\)"):
                read()
        with pytest.raises(ResultError, match="There is no point 5; valid are 0 to 4"):
            result.point(5)
        assert export([str(result.path), "--to", "npy", "-o", "x.npy"]) == 1
    assert "different sizes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("energy", ["shard=0/2", "strategy=vectorize"], "have different sizes, and"),
        ("energy", ["output.compression=gzip"], "neither shards nor compression"),
        (
            "energy",
            ["points=leading", "inputs.path=all.npz", "points.offsets=[0,3]"],
            "offsets are for points=offsets only",
        ),
        ("energy", ["points=offsets", "inputs.path=all.npz", "points.offsets=[0,3]"], "the last"),
        ("energy", ["points=offsets", "inputs.path=all.npz", "points.offsets=[0,3,3]"], "larger"),
        ("energy", ["points=offsets", "inputs.path=all.npz"], "offsets=None: valid are where"),
        ("energy", ["wrt.pattern=numbers"], "numbers .* holds int64"),
        ("of_few", [], r"(?s)too many atoms\n.*at point 3 \(inputs.path=mols/3.npz[^\n]*$"),
        ("named_by_size", ["op=jacobian"], "returns 4 at the first point and 6 at point 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    name: str, more: list[str], message: str, molecules: list[Any], run_job: Run
) -> None:
    given = {each.partition("=")[0]: each for each in options(name, "op=hessian", *more)}
    with pytest.raises(JobError, match=message):
        run_job(*given.values())


def test_files_with_other_arrays_are_refused(molecules: list[Any], run_job: Run) -> None:
    np.savez("mols/9.npz", positions=np.eye(3))
    with pytest.raises(JobError, match=r"9.npz holds positions and mols/0.npz"):
        run_job(*options("energy", "op=hessian"))


def test_conversions_at_all_points_are_counted(
    molecules: list[Any], resolved: Callable[..., Job]
) -> None:
    job = resolved(*options("energy", "op=hessian", "dtype=float32"))
    inexact = sum(int((p.float().double() != p).sum()) for p, _ in molecules)
    (note,) = [each for each in job.notes if each.startswith("converted")]
    assert (
        note == f"converted: inputs positions: float64 -> float32 (not exact in {inexact} entries)"
    )


def test_a_block_lies_within_a_point(molecules: list[Any], resolved: Callable[..., Job]) -> None:
    job = resolved(*options("energy", "op=hessian"))
    call = job.function.function
    assert isinstance(call, RaggedFunction)
    stream = RaggedStream(
        call, *job.point.values(), seed=0, operation="hessian", strategy="vectorize"
    )
    assert stream.bounds == (0, 12, 30, 36, 51, 69)
    assert block_end(stream, 0, 100) == 12
    assert block_end(stream, 13, 5) == 18
    assert stream.largest == 1
    assert stream.share > 0
