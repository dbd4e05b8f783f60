"""The user's own function: callables of any kind, every dtype, and those that do not fit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from jobs.errors import JobError
from jobs.job import Job
from outputs import Result
from tests.jobs.support.own_functions import of

Resolve = Callable[..., Job]
Run = Callable[..., Result]


JACOBIANS = {
    "square": torch.diag(torch.tensor([2.0, 4, 6])),
    "scalar": torch.tensor([3.0, 12, 27]),
    "with_default": torch.diag(torch.tensor([2.0, 4, 6])),
    "instance": torch.diag(torch.tensor([2.0, 4, 6])),
    "instance.method": torch.diag(torch.tensor([3.0, 12, 27])),
    "partial": torch.diag(torch.tensor([3.0, 12, 27])),
    "unnamed": torch.diag(torch.tensor([2.0, 4, 6])),
    "several": (torch.diag(torch.tensor([2.0, 4, 6])), torch.ones(3)),
    "named": (torch.diag(torch.tensor([3.0, 12, 27])), torch.ones(3)),
    "any_number": torch.ones(1, 3),
    "no_rows": torch.zeros(0, 3),
    "integers": torch.zeros(3, 3),
}


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
@pytest.mark.parametrize("name", JACOBIANS)
def test_a_callable_of_any_kind(name: str, strategy: str, own: Path, run_job: Run) -> None:
    result = run_job(*of(name), f"strategy={strategy}")
    given, expected = result.as_torch(), JACOBIANS[name]
    pairs = (
        [(given, expected)] if isinstance(expected, Tensor) else zip(given, expected, strict=True)
    )
    for part, other in pairs:
        assert torch.equal(part, other.double())


@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode"])
@pytest.mark.parametrize(("point", "shape"), [("zero_dim", ()), ("empty", (0,))])
def test_points_of_unusual_shape_and_type(
    point: str, shape: tuple[int, ...], strategy: str, own: Path, run_job: Run
) -> None:
    result = run_job(*of("square", point), f"strategy={strategy}")
    assert result.as_torch().shape == (*shape, *shape)
    again = run_job(*of("square", point), f"strategy={strategy}")
    assert again.complete


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64", "complex128"])
def test_every_dtype(dtype: str, strategy: str, own: Path, run_job: Run) -> None:
    result = run_job(*of("square"), f"dtype={dtype}", f"strategy={strategy}")
    given = result.as_torch()
    assert given.dtype == getattr(torch, dtype)
    assert torch.equal(given, JACOBIANS["square"].to(given.dtype))


@pytest.mark.parametrize("operation", ["vjp", "jvp", "jacobian"])
@pytest.mark.parametrize(
    ("name", "dtype"), [("turned", "float64"), ("absolute", "complex128"), ("turned", "complex64")]
)
def test_real_and_complex_meet(
    operation: str, name: str, dtype: str, own: Path, resolved: Resolve, run_job: Run
) -> None:
    overrides = (*of(name), f"dtype={dtype}", f"op={operation}", "strategy=reverse-loop")
    job = resolved(*overrides)
    given = run_job(job).as_torch()
    if operation != "jacobian":
        vector = next(iter(job.vectors.values()))[0]
        function = getattr(torch.autograd.functional, operation)
        expected = function(job.function.function, job.inputs, vector)[1]
        assert vector.dtype == (
            job.function.function(job.inputs).dtype if operation == "vjp" else job.dtype
        )
        torch.testing.assert_close(given, expected)
    else:
        factor = 1 + 2j if name == "turned" else 2
        diagonal = factor * (torch.ones(3) if name == "turned" else torch.arange(3) + 1)
        torch.testing.assert_close(given, torch.diag(diagonal).to(given.dtype))


def test_entries_that_are_not_finite_are_kept(own: Path, run_job: Run) -> None:
    assert np.isinf(np.diag(run_job(*of("divided"))[...])).all()


@pytest.mark.parametrize(
    ("name", "point", "pattern"),
    [
        ("missing", "point", r"function.target=own:missing: there is no missing in .*own.py"),
        ("squar", "point", r"did you mean square\?"),
        ("not_callable", "point", r"of type int and cannot be called"),
        ("number", "point", r"number.*type float"),
        ("none", "point", r"none.*type NoneType"),
        ("nothing", "point", r"returns no tensors"),
        ("mixed", "point", r"mixed returns b of type int; choose the output by function.output=a$"),
        ("largest", "point", r"returns output1 of int64, .*choose .*function.output=0$"),
        (
            "square",
            "whole",
            r"x \(function.point=own:whole\) holds int64, .*floating-point numbers",
        ),
        ("powers", "point", r"powers returns a value of type function .*function.factory=true"),
        ("same_keys", "point", r"same as text: 1, 1"),
        ("raising", "point", r"own:raising: ValueError: no good$"),
        ("leaving", "point", r"own:leaving: SystemExit: 3$"),
        ("needs_keyword", "point", r"holds input; the function needs x, power$"),
        ("square", None, r"inputs=default: square has no default point.*function.point="),
        ("square", "missing", r"function.point=own:missing: there is no missing"),
        (
            "square",
            "points",
            r"own:points: the source holds y, x; the function needs x",
        ),
        ("square", "failing_point", r"function.point=own:failing_point: .*RuntimeError: no point$"),
        ("square", "list_of_floats", r"input0 is of type float"),
        (
            "square",
            "unfinished",
            r"function.point=own:unfinished: x holds 1 values that are not finite",
        ),
    ],
)
@pytest.mark.parametrize("operation", ["jacobian", "vjp"])
def test_a_function_that_does_not_fit_is_reported(
    operation: str, name: str, point: str | None, pattern: str, own: Path, run_job: Run
) -> None:
    with pytest.raises(JobError, match=f"(?m){pattern}") as caught:
        run_job(*of(name, point), f"op={operation}", "strategy=reverse-loop")
    # The message includes the frames of the failure, and the file in which the point is saved.
    frames = {"raising": 3, "leaving": 3, "failing_point": 2}
    lines = 1 + frames.get(name, frames.get(str(point), 0))
    assert len(str(caught.value).splitlines()) == lines
    assert not list(own.glob("runs/**/*.h5*"))


@pytest.mark.parametrize("operation", ["hessian", "vhp", "hvp"])
def test_a_function_that_is_not_scalar_has_no_hessian(
    operation: str, own: Path, run_job: Run
) -> None:
    with pytest.raises(JobError, match=r"one tensor with one element|one element"):
        run_job(*of("square"), f"op={operation}", "strategy=vectorize")
