"""One of many points at which a derivative or a constant is at fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import hessian, jacrev

from jobs.errors import ConfigurationError, JobError
from outputs import Result, VerificationState, verify_result

POINTS, BAD = 5, 2
FUNCTIONS = """
import torch

def roots(x): return x.sqrt()
def logarithms(x): return x.log().sum()
def linear(x): return 2 * x - x.roll(1, -1)
def scaled(x, factor):
    if float(factor) < 0: raise ValueError("negative")
    return (x * factor).square().sum()
def total(z, label): return (z - label).square().sum()
def mean(z, label): return (z - label).square().mean()
def norm(z, label): return (z - label).norm()
"""
Run = Callable[..., Result]


@pytest.fixture
def x(directory: Path) -> torch.Tensor:
    (directory / "own.py").write_text(FUNCTIONS)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(POINTS, 3, generator=generator, dtype=torch.float64) + 0.5
    label = torch.rand(POINTS, 3, generator=generator, dtype=torch.float64)
    np.savez("given.npz", x=x, label=label)
    x[BAD, 1] = 0
    np.savez("bad.npz", x=x, label=label)
    np.savez("without_labels.npz", x=x)
    np.savez("flat.npz", x=torch.cat([x.reshape(-1), x[0, :1]]))
    return x


def options(name: str, *more: str, file: str = "given.npz") -> tuple[str, ...]:
    target = f"function.target=./own.py:{name}"
    return ("function=python", target, "inputs=numpy", f"inputs.path={file}", *more)


@pytest.mark.parametrize("strategy", ["auto", "vectorize", "reverse-loop", "forward-mode"])
@pytest.mark.parametrize("op", ["ggn", "fisher", "hessian"])
def test_a_derivative_that_is_infinite_at_one_point_is_recorded(
    op: str, strategy: str, x: torch.Tensor, run_job: Run
) -> None:
    given = ("op=" + op, f"strategy={strategy}", "points=leading")
    label = torch.from_numpy(np.load("bad.npz")["label"])
    if op == "hessian":
        result = run_job(*options("logarithms", *given, file="without_labels.npz"))
    else:
        result = run_job(*options("roots", *given, "loss=mse", file="bad.npz"))
    for point in range(POINTS):
        jacobian = jacrev(torch.sqrt)(x[point])
        slope = (x[point].sqrt() - label[point]) * 2 / 3
        expected = {
            "hessian": torch.diag(-(x[point] ** -2)),
            "ggn": jacobian.T @ jacobian * 2 / 3,
            "fisher": jacobian.T @ torch.diag(3 * slope**2) @ jacobian,
        }[op]
        if point == BAD:
            assert not np.isfinite(result[point]).all()
        else:
            np.testing.assert_allclose(result[point], expected, rtol=1e-12)
    assert result.execution["nonfinite"]["first"][0][0] // 3 == BAD
    figures = result.execution["verification"]
    assert (figures["lines_checked"], figures["lines_without_finite_product"]) == (12, 3)
    assert result.verdict.state is VerificationState.PARTLY
    assert not verify_result(result.path).problems


def test_at_points_of_different_sizes(x: torch.Tensor, run_job: Run) -> None:
    cut = ("points=offsets", "points.offsets=[0,3,6,9,12,16]")
    result = run_job(*options("logarithms", "op=hessian", *cut, file="flat.npz"))
    assert not np.isfinite(np.asarray(result.point(BAD))).all()
    expected = hessian(lambda x: x.log().sum())(torch.cat([x[4], x[0, :1]]))
    np.testing.assert_allclose(np.asarray(result.point(4)), expected, rtol=1e-12)
    assert result.execution["verification"]["lines_without_finite_product"] == 3


def test_a_wrong_number_at_another_point_is_found_nevertheless(
    x: torch.Tensor, run_job: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.streams.curvature_at_points import CurvaturePointStream

    right = CurvaturePointStream.block

    def wrong(self: CurvaturePointStream, start: int, stop: int) -> Any:
        block = right(self, start, stop)
        if start <= 10 < stop:
            block.pieces[0][10 - start, 1] *= -1
        return block

    monkeypatch.setattr(CurvaturePointStream, "block", wrong)
    words = ("op=ggn", "loss=mse", "points=leading", "strategy=vectorize", "chunk_size=3")
    with pytest.raises(JobError, match=r"rows 9 to 12 disagree"):
        run_job(*options("roots", *words, file="bad.npz"))


def test_messages_about_labels_name_the_point(x: torch.Tensor, run_job: Run) -> None:
    np.savez("classes.npz", x=x, label=[0, 1, 7, 1, 2])
    batched = ("points=leading", "points.batched=true", "loss=cross_entropy")
    (Path("own.py")).write_text("def same(x): return x\n")
    for op in ("hessian", "ggn", "fisher"):
        with pytest.raises(JobError, match=r"labels go from 7 to 7; .*, at point 2"):
            run_job(*options("same", f"op={op}", *batched, file="classes.npz"))


def test_messages_about_constants_name_the_point(x: torch.Tensor, run_job: Run) -> None:
    np.savez("scaled.npz", x=x, factor=[1.0, 2, 3, -1, 2])
    pattern = ("points=leading", "wrt.pattern=x")
    with pytest.raises(JobError, match=r"negative(.|\n)*at point 3"):
        run_job(*options("scaled", "op=hessian", *pattern, file="scaled.npz"))


def test_messages_about_labels_name_one_of_several_files(x: torch.Tensor, run_job: Run) -> None:
    for number, size in enumerate((2, 3, 4)):
        np.savez(f"file{number}.npz", x=torch.ones(size), label=torch.ones(4 if size < 4 else 3))
    words = ("op=ggn", "loss=mse", "points=files")
    with pytest.raises(
        JobError, match=r"the labels \(4,\); .*, at point 0 \(inputs\.path=file0\.npz"
    ):
        run_job(*options("roots", *words, file="file*.npz"))


@pytest.mark.parametrize(
    ("loss", "reduction", "message"),
    [
        ("total", "mean", r"loss\.reduction=mean: .* valid is loss\.reduction=sum"),
        ("mean", "sum", r"loss\.reduction=sum: .* valid is loss\.reduction=mean"),
        ("norm", "sum", r"op=fisher: .* points\.batched=true"),
    ],
)
def test_a_fisher_matrix_of_a_loss_that_combines_samples_otherwise(
    loss: str, reduction: str, message: str, x: torch.Tensor, run_job: Run
) -> None:
    given = ("loss=python", f"loss.target=./own.py:{loss}", f"loss.reduction={reduction}")
    words = options("linear", *given, "points=leading")
    with pytest.raises(ConfigurationError, match=message):
        run_job("op=fisher", *words)
    # The other matrix does not take the loss of a point apart.
    assert run_job("op=ggn", *words).verdict.state is VerificationState.VERIFIED
    batched = run_job("op=fisher", *words, "points.batched=true") if loss != "norm" else None
    assert batched is None or np.isfinite(batched[:]).all()
