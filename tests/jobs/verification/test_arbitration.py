"""Where two routes to a derivative disagree or one is missing, differences settle what is right."""

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from jobs.errors import JobError
from jobs.job import Job
from jobs.verification.sparse_check import Matrix, check_sparse
from outputs import Result, verify_result

Run = Callable[..., Result]

FUNCTIONS = """
import torch
from torch import nn

@torch.library.custom_op("arbitration::sine", mutates_args=())
def sine(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x)

@sine.register_fake
def _(x):
    return torch.empty_like(x)

sine.register_autograd(
    lambda ctx, g: g * torch.cos(ctx.saved_tensors[0]),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)

def custom(backward, jvp):
    class Sine(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x.sin()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(inputs[0])
            ctx.save_for_forward(inputs[0])

        @staticmethod
        def backward(ctx, cotangent):
            return backward * cotangent * ctx.saved_tensors[0].cos()

        @staticmethod
        def jvp(ctx, tangent):
            return jvp * tangent * ctx.saved_tensors[0].cos()

        @staticmethod
        def vmap(info, in_dims, x):
            return Sine.apply(x), in_dims[0]

    return Sine.apply

_wrong_forward, _wrong_reverse, _both = custom(1.0, 1.01), custom(1.01, 1.0), custom(1.01, 1.02)

class _Numpy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, cotangent):
        return torch.from_numpy(cotangent.numpy() * ctx.saved_tensors[0].cos().numpy())

def own_operator(x): return 2 * sine(x) + x.sum()
def wrong_forward(x): return 2 * _wrong_forward(x) + x.sum()
def wrong_reverse(x): return 2 * _wrong_reverse(x) + x.sum()
def both_wrong(x): return 2 * _both(x) + x.sum()
def by_numpy(x): return 2 * _Numpy.apply(x) + x.sum()
def truth(x): return 2 * x.sin() + x.sum()

def cholesky(x):
    matrix = torch.outer(x, x) + torch.diag(x.abs() + 1)
    return torch.cholesky_inverse(torch.linalg.cholesky(matrix))
def cholesky_truth(x):
    return torch.linalg.inv(torch.outer(x, x) + torch.diag(x.abs() + 1))

def product(x):
    return torch.ones(3).to(x).scatter_reduce(0, torch.tensor([0, 0, 1, 2, 2, 1]), x, "prod")
def product_truth(x): return torch.stack([x[0] * x[1], x[2] * x[5], x[3] * x[4]])

def twice(x): return torch.zeros(3).to(x).index_put((torch.tensor([0, 0, 1]),), x[:3] ** 2)
def twice_truth(x): return torch.stack([x[1] ** 2, x[2] ** 2, 0 * x[0]])

def attention(x):
    query = x.reshape(1, 1, 3, 2)
    # The kernel that the function chooses itself stays.
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.FLASH_ATTENTION):
        return nn.functional.scaled_dot_product_attention(query, 2 * query, query + 1)
def attention_truth(x):
    query = x.reshape(3, 2)
    return (query @ (2 * query).T / 2**0.5).softmax(1) @ (query + 1)

def energy(x): return (2 * _wrong_forward(x) + x.sum()).square().sum()
def energy_truth(x): return truth(x).square().sum()
"""
POINT = np.array([0.3, -1.2, 0.8, 2.1, -0.4, 0.9])
REVERSE = ("reverse-loop", "vectorize")
FORWARD = ("forward-mode", "forward-loop")
# By which strategies they are right.
RIGHT = {
    "own_operator": REVERSE,
    "wrong_forward": REVERSE,
    "wrong_reverse": FORWARD,
    "cholesky": REVERSE,
    "product": REVERSE,
    "twice": FORWARD,
    "attention": REVERSE,
    "by_numpy": ("reverse-loop",),
}


@pytest.fixture
def run_function(directory: Path, run_job: Run) -> Run:
    (directory / "functions.py").write_text(FUNCTIONS)
    np.save(directory / "x.npy", POINT)
    return lambda name, *more: run_job(
        "function=python",
        f"function.target=functions:{name}",
        *(() if any("inputs=" in each for each in more) else ("inputs=numpy", "inputs.path=x.npy")),
        *more,
    )


def truth_of(name: str) -> np.ndarray:
    functions = importlib.import_module("functions")
    known = getattr(functions, f"{name}_truth", functions.truth)
    jacobian = torch.autograd.functional.jacobian(known, torch.tensor(POINT))
    return np.asarray(jacobian).reshape(-1, 6)


@pytest.mark.parametrize(
    ("name", "strategy"),
    [(name, strategy) for name, strategies in RIGHT.items() for strategy in strategies],
)
def test_a_strategy_that_is_right_is_verified(run_function: Run, name: str, strategy: str) -> None:
    result = run_function(name, "op=jacobian", f"strategy={strategy}")
    np.testing.assert_allclose(result[...], truth_of(name), rtol=1e-9, atol=1e-12)
    figures = result.execution["verification"]
    assert figures["lines_checked"] == len(POINT if strategy in FORWARD else result[...])
    assert figures["lines_without_finite_product"] == 0
    assert figures["tolerance"] < 1e-5
    assert {each["state"] for each in result.execution["differences"]} == {"agree"}
    assert verify_result(result.path).ok


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        (name, strategy)
        for name in RIGHT
        if name not in ("attention", "by_numpy")
        for strategy in (*REVERSE, *FORWARD)
        if strategy not in RIGHT[name]
    ],
)
def test_a_strategy_that_is_wrong_is_refused_and_the_right_ones_are_named(
    run_function: Run, name: str, strategy: str
) -> None:
    right = "|".join(RIGHT[name])
    with pytest.raises(JobError, match=rf"disagree.* agree with .*use strategy=({right})"):
        run_function(name, "op=jacobian", f"strategy={strategy}")


@pytest.mark.parametrize("strategy", ["reverse-loop", "forward-mode"])
def test_two_wrong_routes_are_contradicted(run_function: Run, strategy: str) -> None:
    with pytest.raises(JobError, match="derivative gives"):
        run_function("both_wrong", "op=jacobian", f"strategy={strategy}")


@pytest.mark.parametrize(
    ("operation", "name"),
    [("vjp", "own_operator"), ("vjp", "attention"), ("jvp", "wrong_reverse"), ("jvp", "twice")],
)
def test_products_are_right_too(run_function: Run, operation: str, name: str) -> None:
    strategy = "reverse-loop" if operation == "vjp" else "forward-loop"
    more = (f"op={operation}", "vectors.count=2", f"strategy={strategy}")
    result = run_function(name, *more)
    assert result.execution["verification"]["lines_checked"] == 2
    assert verify_result(result.path).ok
    vectors = np.asarray(next(iter(result.vectors.values()))).reshape(2, -1)
    jacobian = truth_of(name)
    expected = vectors @ jacobian if operation == "vjp" else vectors @ jacobian.T
    np.testing.assert_allclose(result[...], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_product_is_refused(run_function: Run, count: int) -> None:
    # By double backward, of a backward that is wrong.
    with pytest.raises(JobError, match=r"as a whole disagrees .*use strategy=forward"):
        run_function("wrong_reverse", "op=jvp", f"vectors.count={count}", "strategy=reverse-loop")


@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize"])
def test_a_hessian_whose_forward_mode_is_wrong(run_function: Run, strategy: str) -> None:
    result = run_function("energy", "op=hessian", f"strategy={strategy}")
    functions = importlib.import_module("functions")
    expected = torch.autograd.functional.hessian(functions.energy_truth, torch.tensor(POINT))
    np.testing.assert_allclose(result[...], expected, rtol=1e-9, atol=1e-12)
    assert result.execution["verification"]["lines_without_finite_product"] == 0


def test_a_sparse_matrix_is_checked_by_the_right_route(
    run_function: Run, resolved: Callable[..., Job]
) -> None:
    dense = run_function("product", "op=jacobian", "strategy=reverse-loop")[...]
    job = resolved(
        *("op=jacobian", "function=python", "function.target=functions:product"),
        *("inputs=numpy", "inputs.path=x.npy"),
    )
    array = scipy.sparse.csr_array(dense)
    matrix = Matrix(array.indptr, array.indices, array.data, dense.shape)
    value = importlib.import_module("functions").product(*job.point.values())
    figures, _ = check_sparse(job, value, matrix)
    assert figures["lines_checked"] == 9


def test_many_points_by_differences(run_function: Run, directory: Path, run_job: Run) -> None:
    np.save(directory / "points.npy", np.stack([POINT, 2 * POINT]))
    result = run_function(
        "attention",
        *("op=jacobian", "strategy=vectorize", "points=leading"),
        *("inputs=numpy", "inputs.path=points.npy"),
    )
    np.testing.assert_allclose(result[0], truth_of("attention"), rtol=1e-9, atol=1e-12)
    assert result.execution["verification"]["lines_checked"] == 12


def test_rows_whose_differences_do_not_converge_are_checked_as_a_whole(
    run_function: Run, directory: Path
) -> None:
    (directory / "kink.py").write_text(
        "import functions\ndef kink(x): return functions._Numpy.apply(x).abs()\n"
    )
    np.save(directory / "zero.npy", np.array([0.3, 0.0, 0.8]))
    result = run_function(
        "kink",
        "function.target=kink:kink",
        "inputs=numpy",
        *(
            "inputs.path=zero.npy",
            "op=jacobian",
            "strategy=reverse-loop",
        ),
    )
    figures = result.execution["verification"]
    assert figures["as_a_whole"]
    assert figures["lines_without_finite_product"] == 0
