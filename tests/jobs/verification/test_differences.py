"""Derivatives against finite differences: what autograd cannot see is found, and nothing else."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.errors import JobError
from jobs.functions.evaluation import evaluated
from jobs.job import Job
from jobs.problems import BUILDERS
from jobs.verification.comparison import Comparison
from jobs.verification.differences import compare_with_differences
from jobs.verification.extrapolation import Extrapolation
from jobs.verification.precision import with_observed
from jobs.verification.routes import Routes
from outputs import Result

Run = Callable[..., Result]
Resolve = Callable[..., Job]

FUNCTIONS = """
import os
import random

import numpy as np
import torch
from torch import nn

class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return 1.01 * cotangent * x.cos()

class _MissingTerm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.sum()

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return cotangent * x.sum()

def scaled_backward(x): return _Scaled.apply(x) + x**2
def missing_term(x): return _MissingTerm.apply(x) + x.sin()
def detached(x): return x.detach() ** 2 * x
def through_numpy(x): return torch.as_tensor(x.detach().numpy()).sin() + 0 * x
def through_data(x): return x.data.sin() + x
def again_a_leaf(x): return x.detach().requires_grad_().sin() + x
def in_inference_mode(x):
    with torch.inference_mode():
        part = x.sin()
    return part.clone() + x
def without_gradient(x):
    with torch.no_grad():
        part = x.sin()
    return part + x
def hidden(x, y): return 1e3 * x.sin() + (1e-5 * y.detach()).sum()
def twice_in_one_place(x):
    return torch.zeros(3, dtype=x.dtype).index_put((torch.tensor([0, 0, 1]),), x[:3])

def random_by_numpy(x): return x * np.random.rand()
def random_by_python(x): return x * random.random()
_calls = [0]
def counting(x):
    _calls[0] += 1
    return x.sin() * _calls[0]

# What a file holds is no state that the program sees.
def calls_in_a_file():
    with open("calls", "a") as file:
        file.write("x")
    return os.path.getsize("calls")
def factor_in_a_file(x): return x.sin() * calls_in_a_file()
def offset_in_a_file(x): return x.sin() + 1e-3 * calls_in_a_file()

def smooth(x): return torch.sin(3 * x) * x.exp()
def kinks(x): return torch.relu(x @ torch.linspace(-1, 1, 60, dtype=x.dtype).reshape(6, 10))
def pooled(x): return torch.max_pool1d(x[None], 2).flatten()
def ordered(x): return x.sort().values * torch.arange(6, dtype=x.dtype)
def norms(x): return torch.stack([x.norm(), x[:3].norm()])
def eigenvalues(x): return torch.linalg.eigvalsh(torch.outer(x, x) + torch.diag(x))
def steps(x): return x.round() + x
def constant(x): return torch.ones(3, dtype=x.dtype)
def dropped(x): return nn.functional.dropout(x, 0.5, training=True)
def rapid(x): return (1e6 * x).sin()
def logarithm(x): return x.abs().log()
def complex_inside(x): return torch.fft.fft(x).abs()
def time_stamps(x): return (1.7e9 + 1e8 * x).sin()
def narrow(x): return (x / 1e-9).tanh()
def saturated(x): return (60 * x).softmax(0)
def fast_and_slow(x): return torch.cat([(1e6 * x).sin() / 1e6, x])
def chaotic(x):
    x = 0.4 * x.tanh() + 0.5
    for _ in range(30):
        x = 3.9 * x * (1 - x)
    return x
def deep(x):
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        x = torch.relu(torch.randn(500, len(x), generator=generator).to(x) @ x) / 500**0.5
    return x
def halves(x): return (x.bfloat16().sin() * 2).to(x.dtype).cumsum(0)
def mixed(x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return (torch.ones(6, 6) @ x.float()).sin().to(x.dtype)
def written_in_place(x): return x.mul_(2).sin()

class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 2)

    def forward(self, x):
        return nn.functional.dropout(self.linear(x), 0.5, training=True)

class Single(nn.Module):
    # In single precision only.
    function = staticmethod(torch.sin)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 20), nn.Linear(20, 20)

    def forward(self, x):
        return self.second(self.function(self.first(x.float())))

class ScaledSingle(Single):
    function = staticmethod(_Scaled.apply)

class DetachedSingle(Single):
    function = staticmethod(lambda x: x.detach() * x)

def scaled_energy(x): return scaled_backward(x).square().sum()
def missing_energy(x): return missing_term(x).square().sum()
def detached_energy(x): return (x.sin().detach() * x**2).sum()
def energy(x): return ((x[1:] - x[:-1]) ** 4).sum() + x.prod()
"""
WRONG = (
    *("scaled_backward", "missing_term", "detached", "through_numpy", "through_data"),
    *(
        "again_a_leaf",
        "in_inference_mode",
        "without_gradient",
        "twice_in_one_place",
    ),
)
CHANGING = (
    *("random_by_numpy", "random_by_python", "counting"),
    *("factor_in_a_file", "offset_in_a_file"),
)
RIGHT = (
    *("smooth", "kinks", "pooled", "ordered", "norms", "eigenvalues", "steps", "constant"),
    *("dropped", "rapid", "logarithm", "complex_inside", "time_stamps", "narrow"),
    *("saturated", "fast_and_slow", "chaotic", "deep", "halves", "mixed", "written_in_place"),
)
# In single precision their arguments are rounding alone, or all their derivatives are.
NOISE = ("rapid", "time_stamps", "fast_and_slow", "chaotic", "saturated")
SCALARS = (
    *("rosenbrock", "mlp_parameters", "pairwise_energy", "gp_residual"),
    *("neighbour_energy", "arrow", "finite_elements"),
)
# Evaluations of the function, of second order of its gradient.
MOST = 10
POINT = np.array([0.3, -1.2, 0.8, 2.1, -0.4, 0.9])


@pytest.fixture
def functions(directory: Path) -> Path:
    (directory / "functions.py").write_text(FUNCTIONS)
    np.save(directory / "x.npy", POINT)
    np.savez(directory / "two.npz", x=POINT, y=POINT)
    return directory


def of(name: str, *more: str, operation: str = "jacobian") -> list[str]:
    return [
        f"op={operation}",
        "function=python",
        f"function.target=./functions.py:{name}",
        "inputs=numpy",
        "inputs.path=x.npy",
        *more,
    ]


@pytest.mark.parametrize("name", WRONG)
def test_what_autograd_does_not_see_is_an_error(functions: Path, run_job: Run, name: str) -> None:
    with pytest.raises(JobError, match=r"changes by .* derivative gives .*verify\.differences=fal"):
        run_job(*of(name, "strategy=reverse-loop"))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("operation", ["jacobian", "hessian"])
@pytest.mark.parametrize("name", ["scaled", "missing", "detached"])
def test_planted_errors_are_found_in_either_precision(
    functions: Path, resolved: Resolve, name: str, operation: str, dtype: str
) -> None:
    job = resolved(*of(f"{name}_energy", f"dtype={dtype}", operation=operation))
    states = {each.state for each in compare_with_differences(Routes(job))}
    assert "contradicted" in states


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("detached", "detach in functions.py, line .*x.detach"),
        ("through_data", "data in functions.py, line .*x.data"),
        ("without_gradient", r"sin without gradients .* line .*part = x.sin"),
        ("scaled_backward", "a custom backward in functions.py, line .*x.sin"),
    ],
)
def test_the_line_that_stops_gradients_is_named(
    functions: Path, run_job: Run, name: str, line: str
) -> None:
    with pytest.raises(JobError, match=rf"derivative gives .* \(see {line}"):
        run_job(*of(name, "strategy=reverse-loop"))


@pytest.mark.parametrize(
    ("name", "states"),
    [
        ("Single", {"agree"}),
        ("ScaledSingle", {"contradicted", "inconclusive"}),
        ("DetachedSingle", {"contradicted", "inconclusive"}),
    ],
)
def test_single_precision_hides_no_error_of_a_percent(
    functions: Path, resolved: Resolve, name: str, states: set[str]
) -> None:
    for seed in range(3):
        np.save("x.npy", POINT + seed)
        routes = Routes(resolved(*of(name, "dtype=float32")))
        (found,) = compare_with_differences(routes)
        assert found.state in states
        assert found.agrees_to is None or found.agrees_to < 1e-4


@pytest.mark.parametrize("operation", ["vjp", "jvp"])
def test_products_are_compared_too(functions: Path, run_job: Run, operation: str) -> None:
    with pytest.raises(JobError, match="derivative gives"):
        run_job(*of("through_numpy", operation=operation))


def test_a_tensor_of_small_effect_does_not_hide(functions: Path, run_job: Run) -> None:
    with pytest.raises(JobError, match="derivative gives"):
        run_job(*of("hidden"), "inputs.path=two.npz", "strategy=reverse-loop")


@pytest.mark.parametrize("name", CHANGING)
def test_another_value_each_time_is_said(functions: Path, run_job: Run, name: str) -> None:
    with pytest.raises(JobError, match=r"a different value on each call: output differs by"):
        run_job(*of(name, "strategy=reverse-loop"))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", RIGHT)
def test_right_derivatives_are_not_refused(
    functions: Path, resolved: Resolve, name: str, dtype: str
) -> None:
    job = with_observed(resolved(*of(name, f"dtype={dtype}")))
    value = evaluated(job.function.function, job.first_point, job.seed)
    (found,) = compare_with_differences(Routes(job, value))
    is_noise = dtype == "float32" and name in NOISE
    assert found.state == "agree" or (found.state == "inconclusive" and is_noise)
    assert found.evaluations <= MOST or found.state != "agree"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("operation", "problem"),
    [("jacobian", problem) for problem in BUILDERS] + [("hessian", problem) for problem in SCALARS],
)
def test_built_in_problems_agree(
    resolved: Resolve, operation: str, problem: str, dtype: str
) -> None:
    job = resolved(f"op={operation}", f"function={problem}", f"dtype={dtype}")
    for found in compare_with_differences(Routes(job)):
        # Some are built of constants in float32, and say little in single precision.
        assert found.state == "agree" or (found.state == "inconclusive" and dtype == "float32")
        assert found.evaluations <= MOST or found.state != "agree"


def test_the_gradient_of_a_hessian_is_compared(functions: Path, run_job: Run) -> None:
    result = run_job(*of("energy", operation="hessian"))
    first, second = result.execution["differences"]
    assert [each["order"] for each in (first, second)] == [1, 2]
    assert {each["state"] for each in (first, second)} == {"agree"}
    for each in (first, second):
        deviation = abs(each["derivative"] - each["difference"])
        assert deviation <= 30 * each["error"] + 1e-7 * each["scale"]


def test_the_option_writes_what_autograd_gives(functions: Path, run_job: Run) -> None:
    result = run_job(*of("detached", "verify.differences=false"))
    np.testing.assert_allclose(result[...], np.diag(POINT**2))
    assert result.execution["differences"] == []


def test_the_tolerance_is_that_of_the_option(functions: Path, run_job: Run) -> None:
    result = run_job(*of("smooth", "verify.tolerance=1e-3"))
    assert result.execution["verification"]["tolerance"] == 1e-3


@pytest.mark.parametrize(
    ("function", "truth"),
    [(math.sin, 1.0), (lambda x: math.exp(3 * x), 3.0), (lambda x: x**3 - 2 * x, -2.0)],
)
def test_an_extrapolation_is_as_good_as_it_says(
    function: Callable[[float], float], truth: float
) -> None:
    steps: list[float] = []

    def at(step: float) -> torch.Tensor:
        steps.append(step)
        return torch.tensor([function(step)], dtype=torch.float64)

    found = Extrapolation(at, at(0.0), 1e-2, 3, epsilon=2.2e-16)
    assert abs(float(found.value) - truth) <= float(found.error) + 1e-10
    assert float(found.error) < 1e-6
    assert steps == [0, 1e-2, -1e-2, 5e-3, -5e-3, 2.5e-3, -2.5e-3]


def test_figures_hold_what_json_can() -> None:
    figures: dict[str, Any] = Comparison("inconclusive", 1, reason="why").figures()
    assert figures["derivative"] is None
    assert figures["error"] is None
    assert figures["reason"] == "why"


def test_a_kink_at_the_point_is_no_contradiction(functions: Path, resolved: Resolve) -> None:
    (functions / "kink.py").write_text("def kink(x): return x.abs() + x.clamp(min=0)")
    job = resolved(
        "op=jacobian",
        "function=python",
        "function.target=./kink.py:kink",
        "inputs=constants",
        "inputs.values.x=[0.0,0.0,1.0]",
    )
    (found,) = compare_with_differences(Routes(job))
    assert found.state != "contradicted"


BUMP = """
import torch
def bump(x): return torch.exp(-((x[0] - x[1]).norm() ** 2))
"""


@pytest.mark.parametrize("strategy", ["forward-mode", "forward-loop", "reverse-loop", "vectorize"])
def test_a_wrong_line_is_refused_where_the_other_product_is_not_a_number(
    functions: Path, run_job: Run, strategy: str
) -> None:
    (functions / "bumps.py").write_text(BUMP)
    # The Hessian has blocks of 2 I and -2 I; forward mode gives zeros, and reverse mode NaN.
    with pytest.raises(JobError, match=r"changes by|disagree with an independent product by inf"):
        run_job(
            "op=hessian",
            "function=python",
            "function.target=./bumps.py:bump",
            "inputs=constants",
            "inputs.values.x=[[1.0,2.0],[1.0,2.0]]",
            f"strategy={strategy}",
        )
    assert not list(functions.glob("runs/*/result.h5"))


def test_batches_draw_the_random_numbers_that_their_derivatives_draw(
    functions: Path, resolved: Resolve
) -> None:
    generator = np.random.default_rng(0)
    np.savez("data.npz", x=generator.standard_normal((6, 6)), target=np.zeros((6, 2)))
    job = resolved(
        "op=hessian",
        "function=python",
        "function.target=./functions.py:Noisy",
        "wrt=params",
        "loss=mse",
        "loss.label=target",
        "loss.batch_size=2",
        "inputs=numpy",
        "inputs.path=data.npz",
    )
    assert [each.state for each in compare_with_differences(Routes(job))] == ["agree", "agree"]
