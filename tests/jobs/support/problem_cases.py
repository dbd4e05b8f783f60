"""A small case of every built-in problem, and independent ways to differentiate it."""

import math
from functools import partial

import torch
from torch import Tensor

from jobs.problems import load_builder
from jobs.problems.problem import Problem

CASES = {
    "rosenbrock": {"n": 7},
    "mlp": {"n": 4, "seed": 1},
    "mlp_parameters": {"n": 4, "samples": 3, "seed": 2},
    "pairwise_energy": {"n": 9, "seed": 3},
    "gp_residual": {"n": 8, "inducing": 5, "seed": 4},
    "brusselator": {"n": 4},
    "transformer_block": {"n": 3, "width": 4, "heads": 2, "seed": 5},
    "rotation_chain": {"n": 31},
    "neighbour_energy": {"n": 2, "seed": 6},
    "convolution_stack": {"n": 4, "channels": 3, "seed": 7},
    "burgers": {"n": 9},
    "arrow": {"n": 8},
    "finite_elements": {"n": 2, "seed": 8},
}
SCALARS = (
    *("rosenbrock", "mlp_parameters", "pairwise_energy", "gp_residual"),
    *("neighbour_energy", "arrow", "finite_elements"),
)
SEEDED = tuple(name for name, options in CASES.items() if "seed" in options)


def build(name: str, dtype: torch.dtype = torch.float64, device: str = "cpu", **options) -> Problem:
    options = CASES[name] | options
    return load_builder(name)(**options, dtype=dtype, device=torch.device(device))


def inputs(problem: Problem) -> tuple[Tensor, ...]:
    return tuple(problem.point.values())


def captured(problem: Problem) -> dict:
    """Return the constants of the function."""
    return problem.function.keywords if isinstance(problem.function, partial) else {}


def tensors(value) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    return [tensor for item in items for tensor in tensors(item)]


def flattened(func, shapes):
    """Return func as a function from one vector to one vector."""

    def of_vector(vector: Tensor) -> Tensor:
        parts = vector.split([math.prod(shape) for shape in shapes])
        out = func(*(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)))
        return torch.cat([o.reshape(-1) for o in (out if isinstance(out, tuple) else (out,))])

    return of_vector


def flat(problem: Problem, func) -> tuple:
    point = inputs(problem)
    return flattened(func, [t.shape for t in point]), torch.cat([t.reshape(-1) for t in point])


def loop(func, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.stack([torch.autograd.grad(y, x, retain_graph=True)[0] for y in func(x).unbind()])


def batched(func, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    y = func(x)
    basis = torch.eye(len(y), dtype=y.dtype)
    return torch.autograd.grad(y, x, basis, is_grads_batched=True)[0]


ENGINES = {
    "loop": loop,
    "batched": batched,
    "reverse": lambda func, x: torch.func.jacrev(func)(x),
    "forward": lambda func, x: torch.func.jacfwd(func)(x),
}


def gradient(func, x: Tensor) -> Tensor:
    """Return the gradient, which autograd can differentiate again."""
    if not x.requires_grad:
        x = x.detach().requires_grad_()
    return torch.autograd.grad(func(x).sum(), x, create_graph=True)[0]


HESSIAN_ENGINES = {
    "loop": lambda func, x: loop(partial(gradient, func), x),
    "batched": lambda func, x: batched(partial(gradient, func), x),
    "reverse over reverse": lambda func, x: torch.func.jacrev(torch.func.jacrev(func))(x)[0],
    "forward over reverse": lambda func, x: torch.func.jacfwd(torch.func.jacrev(func))(x)[0],
    "forward over forward": lambda func, x: torch.func.jacfwd(torch.func.jacfwd(func))(x)[0],
}


def central_differences(func, x: Tensor, step: float = 1e-5) -> Tensor:
    columns = [
        (func(x + step * e) - func(x - step * e)) / (2 * step)
        for e in torch.eye(len(x), dtype=x.dtype)
    ]
    return torch.stack(columns, dim=1).detach()


def assert_close(actual, expected, tolerance: float = 1e-12) -> None:
    """Compare arrays relative to the largest entry."""
    actual, expected = torch.as_tensor(actual).double(), torch.as_tensor(expected).double()
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()
