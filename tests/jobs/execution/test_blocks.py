"""Diagonal blocks of Hessians and curvature matrices: those of torch's own, or a refusal."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import hessian

import jobs
from jobs.errors import JobError
from jobs.reporting.agreement import compare_strategies
from jobs.reporting.summary import summarise
from jobs.streams.blocks import BlocksStream
from outputs import Result, ResultError, VerificationState, compare_results
from outputs import verify_result as verified
from outputs.analyse import main as analyse
from outputs.export import main as export
from outputs.plot import main as plot
from outputs.show import main as show
from tests.support.processes import committed, start_job, wait_for

POINT = {
    "a": torch.linspace(0.2, 1.1, 4, dtype=torch.float64),
    "b": torch.linspace(-1, 1, 6, dtype=torch.float64).exp().reshape(2, 3),
    "c": torch.tensor(0.3, dtype=torch.float64),
}
PLACES = {"a": range(4), "b": range(4, 10), "c": range(10, 11)}
STRATEGIES = ["reverse-loop", "vectorize", "forward-loop", "forward-mode"]
Compute = Callable[..., Result]


def energy(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return (a.sin().sum() * (b @ b.T).prod()) + (a**4).prod() * b.exp().sum() * c.cos()


def hessian_of_energy(*names: str) -> np.ndarray:
    x = torch.cat([tensor.reshape(-1) for tensor in POINT.values()])
    whole = hessian(lambda x: energy(x[:4], x[4:10].reshape(2, 3), x[10]))(x)
    lines = [line for name in names or PLACES for line in PLACES[name]]
    return whole.numpy()[np.ix_(lines, lines)]


def in_place(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    a.mul_(2)
    b.add_(1)
    return (a.prod() * b.sin().sum()) * c.exp() + (b**3).sum()


def drawing(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    weights = torch.rand(4, dtype=torch.float64)
    return (weights * a**3).sum() * b.sum() * c + (b**3 * torch.rand(2, 3).double()).sum()


def ignoring(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return (a**3).sum() * c


@pytest.fixture
def compute(tmp_path: Path) -> Compute:
    def run(function: Any = energy, point: Any = None, **options: Any) -> Result:
        defaults = {"runs": tmp_path, "structure": "blocks", "progress": "quiet"}
        given = POINT if point is None else point
        result = jobs.compute("hessian", function, given, **{**defaults, **options})
        assert isinstance(result, Result)
        return result

    return run


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("chunk_size", [3, "auto"])
def test_they_are_those_of_the_whole_hessian(
    compute: Compute, strategy: str, chunk_size: int | str
) -> None:
    with compute(strategy=strategy, chunk_size=chunk_size) as result:
        for name, tensor in POINT.items():
            expected = hessian_of_energy(name)
            np.testing.assert_allclose(result.block_of(name)[:], expected, rtol=1e-12)
            assert result.block(name, name).shape == (*tensor.shape, *tensor.shape)
        assert (result.structure, result.shape) == ("blocks", (11, 6))
        assert result.groups == (("a",), ("b",), ("c",))
        np.testing.assert_allclose(result.diagonal(), hessian_of_energy().diagonal(), rtol=1e-12)
        trace = float(hessian_of_energy().trace())
        assert float(result.trace().values) == pytest.approx(trace, rel=1e-12)
        assert result.verdict.state is VerificationState.VERIFIED
        assert result.execution["verification"]["lines_checked"] == 11
        assert float(result.value["output"]) == pytest.approx(float(energy(**POINT)), rel=1e-14)
        path = result.path
    found = verified(path)
    assert (found.ok, found.verdict.state, found.lines_checked) == (True, "verified", 11)


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        ([["a", "c"], "b"], (("a", "c"), ("b",))),
        (["[bc]", "a"], (("a",), ("b", "c"))),
        ("*", (("a", "b", "c"),)),
    ],
)
def test_groups_of_tensors_have_one_block(
    compute: Compute, groups: Any, found: tuple[tuple[str, ...], ...]
) -> None:
    with compute(structure={"kind": "blocks", "groups": groups}) as result:
        assert result.groups == found
        for group in found:
            block = result.block_of(group[-1])
            np.testing.assert_allclose(block[:], hessian_of_energy(*group), rtol=1e-12)
            first, last = POINT[group[0]], POINT[group[-1]]
            np.testing.assert_array_equal(
                result.block(group[0], group[-1]).reshape(first.numel(), -1),
                block[: first.numel(), block.shape[1] - last.numel() :],
            )
        lines = [line for group in found for name in group for line in PLACES[name]]
        assert result.row_numbers.tolist() == result.column_numbers.tolist() == lines
        np.testing.assert_array_equal(result.points["b"], POINT["b"])


def test_the_same_blocks_are_one_job(compute: Compute) -> None:
    groups = ["a", "b", "c"], [["c"], ["b"], "a"], ["[a]", "b", "?"[:0] + "c"]
    found = {compute(structure={"kind": "blocks", "groups": each}).fingerprint for each in groups}
    assert found == {compute().fingerprint}
    other = compute(structure={"kind": "blocks", "groups": [["a", "b"], "c"]})
    assert other.fingerprint not in found
    with compute() as first, other, pytest.raises(ResultError, match="can be compared"):
        compare_results(first, other)


@pytest.mark.parametrize("function", [in_place, drawing, ignoring])
@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
def test_functions_of_many_kinds(compute: Compute, function: Any, strategy: str) -> None:
    with (
        compute(function, strategy=strategy) as result,
        compute(function, strategy=strategy, structure="full") as full,
    ):
        for name in POINT:
            np.testing.assert_allclose(result.block(name, name), full.block(name, name), atol=1e-12)
        assert result.verdict.state is full.verdict.state is VerificationState.VERIFIED


@pytest.mark.parametrize(
    "point",
    [
        {"x": torch.linspace(0.1, 1, 5, dtype=torch.float64)},
        {"x": torch.zeros(0, dtype=torch.float64), "y": torch.ones(3, dtype=torch.float64)},
        {"x": torch.ones(2, dtype=torch.float64), "y": torch.zeros(2, 0, dtype=torch.float64)},
        {"x": torch.zeros(0, dtype=torch.float64)},
    ],
    ids=["one", "empty first", "empty last", "nothing"],
)
def test_odd_points(compute: Compute, point: dict[str, Tensor]) -> None:
    def cubes(*tensors: Tensor) -> Tensor:
        return torch.stack([(each**3).sum() for each in tensors]).sum()

    function = (lambda x: cubes(x)) if len(point) == 1 else (lambda x, y: cubes(x, y))
    # A matrix without entries is not verified.
    verify = "probe" if any(tensor.numel() for tensor in point.values()) else "off"
    with compute(function, point, name="cubes", verify=verify) as result:
        for name, tensor in point.items():
            expected = torch.diag(6 * tensor.reshape(-1)).numpy()
            np.testing.assert_allclose(result.block_of(name)[:], expected, atol=1e-14)
            assert result.block(name, name).shape == (*tensor.shape, *tensor.shape)
        path = result.path
    assert verified(path).ok


def test_single_precision(compute: Compute) -> None:
    with compute(dtype="float32") as result:
        assert result.dtype == np.float32
        for name in POINT:
            np.testing.assert_allclose(result.block_of(name)[:], hessian_of_energy(name), rtol=2e-4)
        assert result.verdict.state is VerificationState.VERIFIED


def test_the_cost_is_that_of_the_blocks(compute: Compute, monkeypatch: Any) -> None:
    # Of the tensors outside of a block no derivative is taken, and no entry stored.
    pieces: list[int] = []
    within = BlocksStream._within

    def counted(self: BlocksStream, number: int, start: int, stop: int) -> Any:
        values, fallbacks = within(self, number, start, stop)
        pieces.append(values.shape[1])
        return values, fallbacks

    monkeypatch.setattr(BlocksStream, "_within", counted)
    with compute(strategy="vectorize") as result:
        path = result.path
    with h5py.File(path) as file:
        entries = file["hessian"]
        assert isinstance(entries, h5py.Dataset)
        assert entries.shape == (4 * 4 + 6 * 6 + 1,)
        assert file.attrs["format_version"] == 10
        assert file["groups"][()].tolist() == [1, 1, 1]  # pyright: ignore
    assert set(pieces) == {4, 6, 1}


def test_the_plan_is_of_all_rows_and_stores_the_blocks(tmp_path: Path) -> None:
    planned = jobs.plan("hessian", energy, POINT, runs=tmp_path, structure="blocks")
    assert planned.plan is not None
    assert planned.plan.bytes_of_matrix == 8 * (4 * 4 + 6 * 6 + 1)
    assert planned.plan.passes == {"reverse": 11, "forward": 11}
    assert "the diagonal blocks of 11 rows x 11 columns, each of at most 6" in planned.text


def test_a_wrong_row_is_refused(compute: Compute, monkeypatch: pytest.MonkeyPatch) -> None:
    within = BlocksStream._within

    def wrong(self: BlocksStream, number: int, start: int, stop: int) -> Any:
        values, fallbacks = within(self, number, start, stop)
        return values * (1 + 1e-6 * (number == 2)), fallbacks

    monkeypatch.setattr(BlocksStream, "_within", wrong)
    with pytest.raises(JobError, match="rows 10 to 11 disagree with an independent product"):
        compute(strategy="reverse-loop")


def test_what_needs_the_whole_matrix_refuses(compute: Compute) -> None:
    whole: list[Callable[[Result], Any]] = [
        lambda result: result[...],
        lambda result: result.point(0),
        Result.as_torch,
        Result.as_linear_operator,
        Result.as_xarray,
        Result.as_dask,
        Result.plot,
        Result.eigenvalues,
        Result.singular_values,
        Result.condition,
        Result.log_determinant,
        lambda result: result.solve(np.ones(11)),
        lambda result: result.gram("rows"),
        Result.spectral_density,
    ]
    with compute() as result:
        for view in whole:
            with pytest.raises(ResultError, match="diagonal blocks") as refused:
                view(result)
            assert str(result.path) in str(refused.value)
        with pytest.raises(ResultError, match="entries of a by b are outside"):
            result.block("a", "b")
        with pytest.raises(ResultError, match="There is no column tensor 'd'; there are: a, b, c"):
            result.block("a", "d")
    with compute(structure="full") as full:
        assert full.groups == ()
        with pytest.raises(ResultError, match="holds no such blocks"):
            full.block_of("a")


def test_commands_know_blocks(
    compute: Compute, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with compute(strategy="reverse-loop") as result, compute(strategy="forward-mode"):
        path, trace = str(result.path), float(result.trace().values)
    assert analyse([path, "--trace"]) == 0
    assert f"{trace:.6g}" in capsys.readouterr().out
    assert analyse([path, "--eigenvalues", "3"]) == 1
    assert "holds the diagonal blocks of a matrix only" in capsys.readouterr().err
    assert show([path]) == 0
    assert "3 diagonal blocks of at most 6 rows, of 11 x 11" in capsys.readouterr().out
    for form in ("npy", "npz", "mat", "phonopy", "mtx"):
        assert export([path, "--to", form, "-o", str(tmp_path / f"x.{form}")]) == 1
        assert path in (message := capsys.readouterr().err)
        assert message.count("\n") == 1
    assert plot([path]) == 1
    assert "outputs.plot needs the whole matrix" in capsys.readouterr().err
    assert {each.matrix for each in summarise(tmp_path)} == {"3 diagonal blocks of 11 x 11 float64"}
    (agreement,) = compare_strategies(tmp_path)
    assert agreement.agrees


def test_a_small_block_does_not_hide_behind_a_large_one(compute: Compute) -> None:
    with compute() as result:
        path = result.path
    with h5py.File(path, "r+") as file:
        products = file["probes/right_product"]
        assert isinstance(products, h5py.Dataset)
        # That of `c`, a ten-thousandth of the others.
        products[10] *= 1 + 1e-6
    assert "1 of 11 rows do not multiply with the right probe" in str(verified(path).verdict)


def test_damage_is_found(compute: Compute) -> None:
    with compute() as result:
        path = result.path
    with h5py.File(path, "r+") as file:
        entries = file["hessian"]
        assert isinstance(entries, h5py.Dataset)
        entries[30] += 1
    assert "checksum" in str(verified(path).verdict)
    with h5py.File(path, "r+") as file:
        del file["groups"]
        file["groups"] = np.array([2, 2])
    assert "groups do not fit" in str(verified(path).verdict)


OWN = """
import glob, os, time
import torch

def point():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(n, dtype=torch.float64, generator=generator) for name, n in
            (("a", 3), ("b", 7), ("c", 5))}

class Slow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        # Only while blocks are computed, not in the checks before.
        if glob.glob("runs/*/*.part"):
            time.sleep(float(os.environ.get("SECONDS", "0")))
        return gradient.clone()

def energy(a, b, c):
    return Slow.apply((a.prod() * b.sin().sum() + (b**2).prod() * c.exp().sum()) ** 2)
"""


def test_it_resumes_after_a_kill(directory: Path, run_job: Callable[..., Result]) -> None:
    (directory / "own.py").write_text(OWN)
    options = (
        "op=hessian",
        "structure=blocks",
        "structure.groups=[[a,c],b]",
        "function=python",
        "function.target=./own.py:energy",
        "function.point=./own.py:point",
        "strategy=reverse-loop",
        "chunk_size=2",
        "runs=runs",
    )
    job = start_job(*options, SECONDS="0.5")
    wait_for(lambda: committed(directory) > 0, job)
    os.kill(job.pid, signal.SIGKILL)
    job.communicate()
    before = committed(directory)
    assert 0 < before < 15
    result = run_job(*options)
    assert result.execution["lines_resumed"] == before
    assert result.verdict.state is VerificationState.VERIFIED
    space: dict[str, Any] = {}
    exec(OWN, space)
    point = {name: tensor.requires_grad_() for name, tensor in space["point"]().items()}
    whole = torch.autograd.functional.hessian(space["energy"], tuple(point.values()))
    for row, name in enumerate(point):
        expected = whole[row][row]
        assert isinstance(expected, Tensor)
        np.testing.assert_allclose(result.block(name, name), expected, rtol=1e-12)
    np.testing.assert_allclose(result.block("a", "c"), whole[0][2], rtol=1e-12)  # pyright: ignore


def test_several_processes_compute_them(tmp_path: Path) -> None:
    options: dict[str, Any] = {"strategy": "forward-mode", "runs": tmp_path, "progress": "quiet"}
    function = {"name": "mlp_parameters", "n": 4}
    blocks = jobs.compute(
        "hessian", function, structure="blocks", devices="cpu:2", chunk_size=4, **options
    )
    full = jobs.compute("hessian", function, **options)
    assert isinstance(blocks, Result)
    assert isinstance(full, Result)
    with blocks, full:
        assert len(blocks.execution["workers"]) == 2
        assert len(blocks.groups) > 1
        for (name,) in blocks.groups:
            np.testing.assert_allclose(blocks.block(name, name), full.block(name, name), atol=1e-12)
