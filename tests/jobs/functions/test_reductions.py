"""A loss that combines samples otherwise than `loss.reduction` says is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import jobs
from outputs import Result, VerificationState


def mean(output: Tensor, label: Tensor) -> Tensor:
    return (output - label).square().sum(1).mean()


def total(output: Tensor, label: Tensor) -> Tensor:
    return (output - label).square().sum()


def neither(output: Tensor, label: Tensor) -> Tensor:
    return (output - label).square().sum().sqrt()


def compute(
    op: str,
    loss: Any,
    reduction: str,
    tmp_path: Path,
    batch_size: int | None = 7,
    **options: Any,
) -> Result:
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh()).double()
    given = {
        name: torch.randn(20, size, dtype=torch.float64, generator=generator)
        for name, size in (("input", 3), ("label", 4))
    }
    how = {"kind": "python", "target": loss, "reduction": reduction, "batch_size": batch_size}
    given_options: dict[str, Any] = {"wrt": "params", "loss": how, **options}
    result = jobs.compute(op, model, given, runs=tmp_path, progress="quiet", **given_options)
    assert isinstance(result, Result)
    return result


@pytest.mark.parametrize(
    ("op", "options"),
    [("hessian", {}), ("ggn", {}), ("fisher", {}), ("ggn", {"structure": "blocks"})],
)
@pytest.mark.parametrize(("loss", "reduction"), [(total, "mean"), (mean, "sum")])
def test_a_mean_is_no_sum(
    op: str, options: dict[str, Any], loss: Any, reduction: str, tmp_path: Path
) -> None:
    other = "sum" if reduction == "mean" else "mean"
    with pytest.raises(
        jobs.ConfigurationError,
        match=f"loss.reduction={reduction}: .* is the {other} of .* loss.reduction={other}",
    ):
        compute(op, loss, reduction, tmp_path, **options)
    assert not list(tmp_path.rglob("*.h5"))


def test_a_fisher_matrix_without_batches_names_the_reduction(tmp_path: Path) -> None:
    with pytest.raises(jobs.ConfigurationError, match=r"valid is loss\.reduction=sum"):
        compute("fisher", total, "mean", tmp_path, batch_size=None)


@pytest.mark.parametrize(("loss", "reduction"), [(mean, "mean"), (total, "sum"), (neither, "sum")])
def test_others_are_computed(loss: Any, reduction: str, tmp_path: Path) -> None:
    with compute("hessian", loss, reduction, tmp_path) as result:
        assert result.verdict.state is VerificationState.VERIFIED
        assert np.isfinite(result[:]).all()
