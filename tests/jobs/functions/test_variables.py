"""Which arguments are the point and which are constants, and choices that do not fit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import JobError
from jobs.job import Job
from outputs import Result
from tests.jobs.support.own_model import VALUES, of, user

Resolve = Callable[..., Job]
Run = Callable[..., Result]


def test_some_inputs_are_constants_and_integers_stay_integers(
    model: Path, run_job: Run, resolved: Resolve
) -> None:
    values = ("inputs=constants", "inputs.values.left=[1.0,2,3]", "inputs.values.right=[1,2]")
    job = resolved("op=jacobian", *of("Two"), *values, "wrt.pattern=right")
    assert list(job.point) == ["right"]
    result = run_job(job)
    torch.manual_seed(0)
    weight = user(job).Two().double().bilinear.weight.detach()
    expected = torch.einsum("okl,k->ol", weight, torch.tensor([1.0, 2, 3], dtype=torch.float64))
    np.testing.assert_allclose(result[...], expected, rtol=1e-12)
    words = ("inputs=constants", "inputs.values.tokens=[[0,1],[2,3]]", "wrt=params")
    assert run_job("op=jacobian", *of("Words"), *words).shape == (10, 35)


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        (["wrt=params", "wrt.pattern=encoder.0.wieght"], "no parameter.*did you mean encoder.0.w"),
        (["wrt=params", "wrt.pattern=[]"], r"wrt.pattern=\[\]: valid is a pattern"),
        (["wrt.pattern=y"], "wrt.pattern=y: no input has such a name; there are x"),
        (["loss=mse", "wrt=params"], "the function needs x, and the loss needs label"),
        (["loss=mse", "loss.reduction=total"], "loss.reduction=total: valid are mean, sum"),
        (["loss=mse", "loss.batch_size=0"], "loss.batch_size=0: valid are null"),
        (["loss=mse", "loss.label=x"], "loss.label=x: the function has an argument of this name"),
        (["loss=own", "loss.batch_size=2"], "there are no data to split"),
        (["loss=python", "loss.target=code/model.py:point"], "of type Tensor and cannot be called"),
        (["loss=python", "loss.target=code/model.py:hubr"], "did you mean huber"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_choices_that_do_not_fit_are_reported(
    overrides: list[str], pattern: str, model: Path, resolved: Resolve
) -> None:
    values = VALUES
    if "loss" in overrides[0] and "params" not in overrides[-1]:
        values = (*VALUES, "inputs.values.label=[1,2]") if "own" not in overrides[0] else VALUES
    with pytest.raises(JobError, match=pattern):
        resolved("op=jacobian", *of("Net"), *values, *overrides)
