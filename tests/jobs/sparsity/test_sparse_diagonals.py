"""Diagonals of sparse Hessians by compressed products: those of the whole matrix, checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

import jobs
from autodiff_core.sparse import SparsityPattern
from jobs.errors import JobError
from outputs import Result, ResultWriter, VerificationState, verify_result

POINT = torch.linspace(0.5, 1.5, 40, dtype=torch.float64)
Compute = Callable[..., Result]


def chain(x: Tensor) -> Tensor:
    return ((x[1:] - x[:-1] ** 2) ** 2 * x[1:]).sum()


def diagonal_of_chain() -> np.ndarray:
    return torch.func.hessian(chain)(POINT).diagonal().numpy()


def product(x: Tensor) -> Tensor:
    return x.prod()


def corner(x: Tensor) -> Tensor:
    """Return a function whose pattern has no entry on most of the diagonal."""
    return (x[:-1] * x[1:]).sum() + x[0] ** 3


@pytest.fixture
def compute(tmp_path: Path) -> Compute:
    def run(function: Any = chain, **options: Any) -> Result:
        defaults = {"runs": tmp_path, "structure": "diagonal", "sparsity": "auto"}
        given: dict[str, Any] = {**defaults, "progress": "quiet", **options}
        result = jobs.compute("hessian", function, POINT, **given)
        assert isinstance(result, Result)
        return result

    return run


@pytest.mark.parametrize("strategy", ["auto", "forward-mode", "reverse-loop"])
def test_it_takes_as_many_products_as_colours(compute: Compute, strategy: str) -> None:
    with compute(strategy=strategy) as result:
        np.testing.assert_allclose(result.diagonal(), diagonal_of_chain(), rtol=1e-12)
        assert (result.structure, result.shape) == ("diagonal", (40, 1))
        assert result.execution["sparsity"]["colours"] <= 4
        assert result.execution["lines_computed"] <= 4
        assert result.verdict.state is VerificationState.VERIFIED
        path = result.path
    assert verify_result(path).ok
    assert [each.name for each in path.parent.glob("*.h5*")] == ["result.h5"]


def test_entries_outside_of_the_pattern_are_zero(compute: Compute) -> None:
    with compute(corner) as result:
        expected = np.zeros(40)
        expected[0] = 6 * float(POINT[0])
        np.testing.assert_allclose(result.diagonal(), expected, atol=1e-14)


def test_a_dense_function_says_why_it_is_not(compute: Compute) -> None:
    with compute(product) as result:
        expected = np.zeros(40)
        np.testing.assert_allclose(result.diagonal(), expected, atol=1e-12)
        assert "of the entries may differ from zero" in str(result.execution)
        assert result.structure == "diagonal"


def test_a_wrong_pattern_is_refused(compute: Compute, tmp_path: Path) -> None:
    # The entries beside the diagonal are missing from it, and would be added to those on it.
    pattern = SparsityPattern.from_scipy(scipy.sparse.csr_array(np.eye(40, dtype=bool)))
    pattern.save(tmp_path / "wrong.npz")
    with pytest.raises(JobError, match="disagree with an independent product"):
        compute(sparsity=tmp_path / "wrong.npz")


def test_a_start_that_ends_while_it_writes_is_continued(
    compute: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = ResultWriter.finish

    def interrupted(self: ResultWriter, *given: Any, **named: Any) -> Path:
        if self.path.name == "replacement.h5":
            raise KeyboardInterrupt
        return finish(self, *given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(ResultWriter, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            compute()
    with compute() as result:
        np.testing.assert_allclose(result.diagonal(), diagonal_of_chain(), rtol=1e-12)
        assert result.execution["sparsity"]["colours"] <= 4
