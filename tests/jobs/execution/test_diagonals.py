"""Diagonals of Hessians and curvature matrices: those of torch's own matrices, or a refusal."""

import json
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
from jobs.errors import ConfigurationError, JobError
from jobs.reporting.agreement import compare_strategies
from jobs.reporting.summary import summarise
from outputs import Result, ResultError, VerificationState, compare_results
from outputs import verify_result as verified
from outputs.analyse import main as analyse
from outputs.export import main as export
from outputs.plot import main as plot
from tests.jobs.support.explicit_curvature import Network, curvature
from tests.jobs.support.interruption import interrupted_after

# Runs are interrupted at one of their lines.
pytestmark = pytest.mark.usefixtures("in_order")

POINT = {
    "a": torch.linspace(0.2, 1.1, 4, dtype=torch.float64),
    "b": torch.linspace(-1, 1, 6, dtype=torch.float64).exp().reshape(2, 3),
}
STRATEGIES = ["reverse-loop", "vectorize", "forward-loop", "forward-mode"]


def energy(a: Tensor, b: Tensor) -> Tensor:
    return (a.sin().sum() * (b @ b.T).prod()) + (a**4).prod() * b.exp().sum()


def hessian_of_energy() -> Tensor:
    x = torch.cat([POINT["a"], POINT["b"].reshape(-1)])
    return hessian(lambda x: energy(x[:4], x[4:].reshape(2, 3)))(x)


@pytest.fixture
def compute(tmp_path: Path) -> Callable[..., Result]:
    def run(function: Any = energy, **options: Any) -> Result:
        options = {"runs": tmp_path, "structure": "diagonal", "progress": "quiet", **options}
        result = jobs.compute("hessian", function, POINT, **options)
        assert isinstance(result, Result)
        return result

    return run


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("chunk_size", [3, "auto"])
def test_it_is_the_diagonal_of_the_whole_hessian(
    compute: Callable[..., Result], strategy: str, chunk_size: int | str
) -> None:
    with compute(strategy=strategy, chunk_size=chunk_size) as result:
        expected = hessian_of_energy()
        np.testing.assert_allclose(result.diagonal(), expected.diagonal(), rtol=1e-12)
        assert result.structure == "diagonal"
        assert result.shape == (10, 1)
        np.testing.assert_array_equal(result.block("b", "diagonal").reshape(-1), result[4:, 0])
        assert result.block("b", "diagonal").shape == (2, 3)
        assert float(result.trace().values) == pytest.approx(float(expected.trace()), rel=1e-12)
        assert result.verdict.state is VerificationState.VERIFIED
        assert result.execution["verification"]["lines_checked"] == 10


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("op", ["ggn", "fisher"])
def test_it_is_the_diagonal_of_the_explicit_curvature(
    op: str, strategy: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net, x, label = Network().double(), torch.randn(7, 3).double(), torch.arange(7) % 2
    result = jobs.compute(
        op,
        net,
        {"x": x, "label": label},
        loss={"kind": "cross_entropy", "batch_size": 3},
        wrt="params",
        structure="diagonal",
        strategy=strategy,
        chunk_size=5,
        runs=tmp_path,
        progress="quiet",
    )
    assert isinstance(result, Result)
    with result:
        expected = curvature(op, net, x, label).diagonal()
        np.testing.assert_allclose(result.diagonal(), expected, rtol=1e-12, atol=1e-14)
        assert result.block("first.weight", "diagonal").shape == (4, 3)
        assert result.verdict.state is VerificationState.VERIFIED


def test_a_full_matrix_has_the_same_diagonal(compute: Callable[..., Result]) -> None:
    with compute(structure="full") as full, compute() as diagonal:
        np.testing.assert_allclose(full.diagonal(), diagonal.diagonal(), rtol=1e-12)
        assert full.fingerprint != diagonal.fingerprint
        with pytest.raises(ResultError, match="only matrices of one shape"):
            compare_results(full, diagonal)


def test_the_file_has_a_version_of_its_own_and_little_size(
    tmp_path: Path,
) -> None:
    x = torch.linspace(0, 1, 600, dtype=torch.float64)
    result = jobs.compute(
        "hessian",
        lambda x: x.sin().sum() ** 2 + x.pow(4).sum(),
        x,
        name="long",
        structure="diagonal",
        runs=tmp_path,
        progress="quiet",
    )
    assert isinstance(result, Result)
    with result:
        assert result.path.stat().st_size < 500_000 < 8 * 600**2
    with h5py.File(result.path) as file:
        assert file.attrs["format_version"] == 9
        assert file.attrs["structure"] == b"diagonal"
        assert file["hessian"].shape == (600, 1)  # pyright: ignore[reportAttributeAccessIssue]


def test_the_plan_is_of_all_rows_and_stores_few_bytes(tmp_path: Path) -> None:
    planned = jobs.plan("hessian", energy, POINT, runs=tmp_path, structure="diagonal")
    assert planned.plan is not None
    assert planned.plan.bytes_of_matrix == 80
    assert planned.plan.passes == {"reverse": 10, "forward": 10}
    assert "the diagonal of 10 rows x 10 columns, float64" in planned.text


def test_verification_checks_checksums_and_says_what_it_cannot(
    compute: Callable[..., Result], capsys: pytest.CaptureFixture[str]
) -> None:
    with compute() as result:
        path = result.path
    found = verified(path)
    assert found.ok
    assert found.verdict.state is VerificationState.VERIFIED
    assert "of which no product can be" in found.verdict.reason
    assert (found.lines_checked, found.right_error, found.tolerance) == (0, None, None)
    with h5py.File(path, "r+") as file:
        entries = file["hessian"]
        assert isinstance(entries, h5py.Dataset)
        entries[3, 0] += 1
    assert not verified(path).ok
    assert "checksum" in str(verified(path).verdict)


WHOLE: dict[str, Callable[[Result], Any]] = {
    "as_torch": Result.as_torch,
    "as_linear_operator": Result.as_linear_operator,
    "plot": Result.plot,
    "eigenvalues": Result.eigenvalues,
    "singular_values": Result.singular_values,
    "condition": Result.condition,
    "log_determinant": Result.log_determinant,
    "solve": lambda result: result.solve(np.ones(10)),
    "gram": lambda result: result.gram("rows"),
    "spectral_density": Result.spectral_density,
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_needs_the_whole_matrix_refuses(name: str, compute: Callable[..., Result]) -> None:
    with compute() as result, pytest.raises(ResultError, match="diagonal") as refused:
        WHOLE[name](result)
    assert str(result.path) in str(refused.value)


def test_commands_know_a_diagonal(
    compute: Callable[..., Result], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with compute(strategy="reverse-loop") as result, compute(strategy="forward-mode"):
        path, diagonal = str(result.path), result.diagonal()
    assert analyse([path, "--trace"]) == 0
    assert f"{diagonal.sum():.6g}"[:6] in capsys.readouterr().out
    assert analyse([path, "--eigenvalues", "3"]) == 1
    assert "holds the diagonal of a matrix only" in capsys.readouterr().err
    assert export([path, "--to", "npy", "-o", str(tmp_path / "d.npy")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "d.npy")[:, 0], diagonal)
    assert export([path, "--to", "phonopy", "-o", str(tmp_path / "d.text")]) == 1
    assert "the diagonal only" in capsys.readouterr().err
    assert plot([path]) == 1
    assert "outputs.plot needs the whole matrix" in capsys.readouterr().err
    assert {each.matrix for each in summarise(tmp_path)} == {"diagonal of 10 x 10 float64"}
    (agreement,) = compare_strategies(tmp_path)
    assert agreement.agrees


def test_it_resumes(
    compute: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    interrupt(monkeypatch, compute)
    with compute(strategy="forward-mode", chunk_size=2) as result:
        assert result.execution["lines_resumed"] == 4
        expected = hessian_of_energy().diagonal()
        np.testing.assert_allclose(result.diagonal(), expected, rtol=1e-12)
        assert result.verdict.state is VerificationState.VERIFIED


def test_other_versions_do_not_continue_it(
    compute: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, compute)
    monkeypatch.setattr("jobs.execution.resuming.other_versions", lambda *_: "torch 1 and torch 2")
    with pytest.raises(JobError, match="overwrite=true begins again"):
        compute(strategy="forward-mode", chunk_size=2)


def interrupt(monkeypatch: pytest.MonkeyPatch, compute: Callable[..., Result]) -> None:
    """Run a job until it has written two blocks of two lines."""
    with interrupted_after(2, monkeypatch):
        compute(strategy="forward-mode", chunk_size=2)


def test_several_processes_compute_it(tmp_path: Path) -> None:
    # Columns are computed, and rows of one entry written.
    options: dict[str, Any] = {"strategy": "forward-mode", "runs": tmp_path, "progress": "quiet"}
    function = {"name": "rosenbrock", "n": 11}
    diagonal = jobs.compute(
        "hessian", function, structure="diagonal", devices="cpu:2", chunk_size=2, **options
    )
    with diagonal, jobs.compute("hessian", function, **options) as full:
        assert len(diagonal.execution["workers"]) == 2
        np.testing.assert_allclose(diagonal.diagonal(), full.diagonal(), rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"op": "jacobian"},
        {"op": "hvp"},
        {"points": "leading"},
        {"rows": "0:3"},
        {"columns": "0:3"},
        {"verify": "off"},
        {"verify": "sample"},
        {"dtype": "complex128"},
        {"output": {"tile": [2, 1]}},
    ],
    ids=json.dumps,
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    op = options.pop("op", "hessian")
    with pytest.raises(ConfigurationError, match=r"structure=diagonal \S+=.*a diagonal is that of"):
        jobs.compute(op, energy, POINT, structure="diagonal", runs=tmp_path, **options)


def test_an_unknown_structure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"structure=bands.*blocks.*diagonal.*full"):
        jobs.compute("hessian", energy, POINT, structure="bands", runs=tmp_path)
