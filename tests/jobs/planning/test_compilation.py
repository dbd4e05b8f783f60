"""Programs are compiled where that is predicted to gain more than it takes, and does gain."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autodiff_core._engines.fusion import FusionPrediction
from jobs.machine import compiler
from jobs.planning import search
from jobs.planning.thresholds import THRESHOLDS
from outputs import Result

FUNCTIONS = """
import torch

def steps(x):
    for _ in range(12):
        x = x + 0.1 * torch.roll(x, 1, 0) * x.sin()
    return x
def products(x):
    matrix = torch.arange(x.numel() ** 2).reshape(x.numel(), -1).to(x.dtype).cos()
    for _ in range(12):
        x = torch.tanh(matrix @ x)
    return x
def point(): return torch.linspace(0, 1, 24)
"""
OPTIONS = ("op=jacobian", "function=python", "function.point=chain:point", "strategy=forward-mode")


@pytest.fixture
def run(
    directory: Path, run_job: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Return a function that runs a job as if it were long, and compiling took no time."""
    (directory / "chain.py").write_text(FUNCTIONS)
    at_once = replace(THRESHOLDS, compiles_from_seconds=0.0, share_to_record=1e9)
    monkeypatch.setattr(search, "THRESHOLDS", at_once)
    monkeypatch.setattr(FusionPrediction, "compile_seconds", 0.0)

    def run(function: str, *options: str) -> Result:
        target = f"function.target=chain:{function}"
        return run_job(*OPTIONS, "chunk_size=8", target, *options)

    return run


def plan_of(result: Result) -> str:
    return result.execution["plan"]["strategy_reason"]


@pytest.mark.parametrize("choice", ["auto", "never", "always"])
def test_programs_are_compiled_where_a_long_run_gains(
    choice: str, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if any compiled chunk were fast enough.
    eager = replace(search.THRESHOLDS, compiled_share=1e9)
    monkeypatch.setattr(search, "THRESHOLDS", eager)
    long = run("steps", f"compile={choice}", "runs=long")
    assert long.execution["engine"] == ("captured" if choice == "never" else "compiled")
    assert ("compiled in" in plan_of(long)) == (choice != "never")
    monkeypatch.setattr(search, "THRESHOLDS", replace(eager, compiled_share=0.0))
    again = run("steps", f"compile={choice}", "runs=hopeless")
    assert again.execution["engine"] == ("compiled" if choice == "always" else "captured")
    assert ("not compiled, which gives" in plan_of(again)) == (choice == "auto")
    np.testing.assert_allclose(long[:], again[:], rtol=1e-12)


def test_programs_of_products_are_not_compiled(run: Callable[..., Result]) -> None:
    result = run("products")
    assert result.execution["engine"] == "captured"
    assert "compiled" not in plan_of(result)


def test_programs_are_not_compiled_without_a_compiler(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "compiler_name", lambda: "no-such-compiler")
    assert "compiled" not in plan_of(run("steps"))


def test_compiling_must_gain_what_it_takes(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FusionPrediction, "compile_seconds", 3600.0)
    assert "compiled" not in plan_of(run("steps"))


def test_short_runs_are_not_timed_for_it(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "THRESHOLDS", THRESHOLDS)
    assert "compiled" not in plan_of(run("steps"))
