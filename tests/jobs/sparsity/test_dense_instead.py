"""With sparsity=auto, what cannot be computed from compressed products is computed densely."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from autodiff_core.sparse import SparsityPattern
from jobs.errors import JobError
from jobs.sparsity import detection
from outputs import open_result, verify_result

# Runs are interrupted at one of their lines.
pytestmark = pytest.mark.usefixtures("in_order")

FUNCTIONS = """
import torch

diagonal = torch.arange(30).repeat(2, 1)

def branches(x):
    return x**2 if x.sum() > 10 else x * x.roll(1)

def product(x):
    return torch.sparse_coo_tensor(diagonal, x, (30, 30), check_invariants=False).to_dense() @ x

def last_overflows(x):
    return torch.cat([x[:-1] ** 2, (x[-1:] - x[-1:].detach()) * 1e200 * 1e200])
"""


def test_what_detection_cannot_trace_is_computed_densely(
    run_sparse: Callable[..., Path], directory: Path, said: Any
) -> None:
    (directory / "own.py").write_text(FUNCTIONS)
    target = ("op=jacobian", "function=python", "function.target=./own.py:product")
    path = run_sparse(*target, "inputs=random", "inputs.shapes=[[30]]", "sparsity=auto")
    with open_result(path) as result:
        reason = result.execution["dense_because"]
        assert reason.startswith("the pattern was not detected: ")
        assert f"({directory / 'own.py'}:10) returns a sparse tensor" in reason
        assert reason in said.getvalue()
        assert np.allclose(result[...], np.diag(2 * result.points["x"]))
    assert verify_result(path).ok


def test_products_that_disagree_give_way_to_the_dense_matrix(
    run_sparse: Callable[..., Path],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (directory / "own.py").write_text(FUNCTIONS)
    diagonal = SparsityPattern.from_scipy(scipy.sparse.eye_array(30))
    monkeypatch.setattr(detection, "detect_sparsity", lambda *args, **options: diagonal)
    np.save("low.npy", np.linspace(0.01, 0.1, 30))
    target = ("op=jacobian", "function=python", "function.target=./own.py:branches")
    path = run_sparse(*target, "inputs=numpy", "inputs.path=low.npy", "sparsity=auto")
    with open_result(path) as result:
        assert "disagree with an independent product" in result.execution["dense_because"]
        x = result.points["x"]
        expected = np.diag(np.roll(x, 1)) + np.roll(np.diag(x), -1, axis=1)
        assert np.allclose(result[...], expected)
    assert sorted(each.name for each in path.parent.iterdir()) == ["result.h5", "status.json"]


def test_what_was_begun_densely_stays_dense(
    run_sparse: Callable[..., Path],
    directory: Path,
    said: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (directory / "own.py").write_text(FUNCTIONS)
    target = ("op=jacobian", "function=python", "function.target=./own.py:last_overflows")
    options = (*target, "inputs=random", "inputs.shapes=[[30]]", "sparsity=auto", "verify='off'")
    by_rows = (*options, "verify.differences=false", "strategy=reverse-loop", "chunk_size=1")
    with monkeypatch.context() as patch:
        patch.setattr(detection, "detect_sparsity", lambda *args, **given: [][0])
        with pytest.raises(JobError, match="the first at row 29"):
            run_sparse(*by_rows, "nonfinite=fail")
    assert "the pattern was not detected" in said.getvalue()
    with open_result(run_sparse(*by_rows)) as result:
        assert "an earlier start" in result.execution["dense_because"]
        assert result.execution["lines_resumed"] == 29


def test_a_disk_that_fails_is_no_reason_for_a_dense_matrix(
    run_sparse: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(detection.Colouring, "save", fail)
    with pytest.raises(JobError, match=r"colouring\.npz cannot be written: Input/output error"):
        run_sparse("op=jacobian", "function=burgers", "function.n=40", "sparsity=auto")
