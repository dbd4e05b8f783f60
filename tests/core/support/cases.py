"""The table of test cases: functions and points, and helpers to differentiate them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import autodiff_core

STRATEGIES = ("reverse-loop", "vectorize", "forward-loop", "forward-mode")
REVERSE = ("reverse-loop", "vectorize")
CHUNK_SIZES = (None, 1, 2, 1000)
MATRICES = ("jacobian", "hessian")
PRODUCTS = ("vjp", "jvp", "vhp", "hvp")
STRATEGIES_OF = {"vjp": REVERSE, "vhp": REVERSE, "jvp": STRATEGIES, "hvp": STRATEGIES}


def keywords(operation: str, strategy: str) -> dict[str, Any]:
    """Return the keywords with which the functional API uses a strategy."""
    if operation in PRODUCTS:
        return {"strategy": strategy}
    name = "strategy" if operation == "jacobian" else "outer_jacobian_strategy"
    torch_name = "reverse-mode" if strategy in REVERSE else "forward-mode"
    return {name: torch_name, "vectorize": strategy in ("vectorize", "forward-mode")}


def call(
    operation: str, func: Callable[..., Any], inputs: Any, strategy: str, **options: Any
) -> Any:
    """Call one of this package's six operations with a strategy."""
    options = {**keywords(operation, strategy), **options}
    return getattr(autodiff_core, operation)(func, inputs, **options)


def torch_call(operation: str, *arguments: Any, **options: Any) -> Any:
    """Call the same operation of torch."""
    return getattr(torch.autograd.functional, operation)(*arguments, **options)


def leaves(tree: Any) -> list[Tensor]:
    """Return the tensors of nested tuples, lists and dictionaries."""
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree]


def assert_same(given: Any, expected: Any, rtol: float = 1e-10, *, dtypes: bool = True) -> None:
    """Assert the same nesting, shapes, dtypes and numbers (relative to the largest)."""
    assert isinstance(given, tuple) != isinstance(given, Tensor)
    # torch documents tuples but returns lists in forward mode.
    assert isinstance(given, tuple) == isinstance(expected, (tuple, list))
    if isinstance(expected, (tuple, list)):
        assert len(given) == len(expected)
        for part, other in zip(given, expected, strict=True):
            assert_same(part, other, rtol, dtypes=dtypes)
        return
    assert given.shape == expected.shape
    assert not dtypes or given.dtype == expected.dtype
    size = float(expected.detach().abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(
        given, expected, rtol=rtol, atol=rtol * size, equal_nan=True, check_dtype=dtypes
    )


def matrix_of(tree: Any, row_sizes: Sequence[int], column_sizes: Sequence[int]) -> Tensor:
    """Return the matrix of nested derivatives, with rows and columns flattened."""
    entries = iter(leaves(tree))
    lines = [
        torch.cat([next(entries).reshape(row, column) for column in column_sizes], dim=1)
        for row in row_sizes
    ]
    return torch.cat(lines)


@dataclass(frozen=True)
class Case:
    """A function and a point.

    Attributes:
        func: The function.
        point: Returns new inputs.
        jacobian: The analytic Jacobian if it is short; otherwise torch gives the expected result.
    """

    func: Callable[..., Any]
    point: Callable[[], Any]
    jacobian: Callable[..., Any] | None = None


def draw(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Return numbers between 0.2 and 1.2, the same at every call."""
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return (torch.rand(shape, generator=generator, dtype=torch.float64) + 0.2).to(dtype)


def _two_in_three_out(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return (x.sin()[:, None] * y.sum()).cos(), x.prod() * torch.ones(2, dtype=x.dtype), y * 2


CASES: dict[str, Case] = {
    "elementwise": Case(torch.sin, lambda: draw(4), lambda x: torch.diag(x.cos())),
    "matrix": Case(lambda x: x @ x.T, lambda: draw(2, 3)),
    "several": Case(_two_in_three_out, lambda: (draw(3), draw(2, 2))),
    "one-element tuples": Case(lambda x: (x**3,), lambda: (draw(3),)),
    "0-dim": Case(torch.exp, lambda: draw(1)[0], torch.exp),
    "0-dim to vector": Case(lambda x: x * draw(3), lambda: draw(1)[0], lambda x: draw(3)),
    "vector to 0-dim": Case(lambda x: (x**3).sum(), lambda: draw(3), lambda x: 3 * x**2),
    "shape (1,)": Case(torch.exp, lambda: draw(1), lambda x: x.exp().reshape(1, 1)),
    "shape (1, 1)": Case(torch.exp, lambda: draw(1, 1)),
    "independent input": Case(lambda x, y: x.sin(), lambda: (draw(2), draw(3))),
    "independent output": Case(
        lambda x: (x.sin(), torch.ones(2, dtype=torch.float64)),
        lambda: draw(3),
        lambda x: (torch.diag(x.cos()), torch.zeros(2, 3, dtype=torch.float64)),
    ),
    "nothing live": Case(lambda x: torch.ones(2, dtype=x.dtype), lambda: draw(3)),
    "detached": Case(lambda x: x.detach() * 2, lambda: draw(3)),
    "linear": Case(lambda x: 3 * x, lambda: draw(3)),
    "identity": Case(lambda x: x, lambda: draw(3), lambda x: torch.eye(3, dtype=x.dtype)),
    "the same twice": Case(lambda x: (lambda y: (y, y))(x.sin()), lambda: draw(3)),
    "a view of the input": Case(lambda x: x[1:], lambda: draw(3)),
    "empty beside": Case(lambda x, y: x.sum() * y, lambda: (draw(0, 2), draw(2))),
    "view": Case(lambda x: x**2, lambda: draw(4, 3)[1:3, ::2]),
    "non-contiguous": Case(lambda x: x.sin() @ x.T, lambda: draw(3, 2).T),
    "expanded": Case(lambda x: x.sin() * x.sum(), lambda: draw(1).expand(3)),
    "float32": Case(lambda x: x.sin() * x.sum(), lambda: draw(3, dtype=torch.float32)),
    "not a number": Case(lambda x: (x - x).sqrt() * x, lambda: draw(2)),
    "parameter": Case(torch.tanh, lambda: torch.nn.Parameter(draw(3))),
    "in place inside": Case(lambda x: x.sin().mul_(x).add_(1), lambda: draw(3)),
}

SCALAR_CASES: dict[str, Case] = {
    "cubic": Case(lambda x: (x**3).sum(), lambda: draw(4)),
    "coupled": Case(lambda x, y: (x**3).sum() * (y**2).sum(), lambda: (draw(3), draw(2, 2))),
    "one-element tuple in": Case(lambda x: x.prod(), lambda: (draw(3),)),
    "0-dim": Case(torch.exp, lambda: draw(1)[0]),
    "shape (1,)": Case(torch.exp, lambda: draw(1)),
    "shape (1, 1)": Case(torch.exp, lambda: draw(1, 1)),
    "linear": Case(lambda x: (3 * x).sum(), lambda: draw(3)),
    "constant": Case(lambda x: torch.ones((), dtype=x.dtype), lambda: draw(3)),
    "independent input": Case(lambda x, y: (x**3).sum(), lambda: (draw(2), draw(3))),
    "linear in one": Case(lambda x, y: (x**2).sum() + y.sum(), lambda: (draw(2), draw(3))),
    "non-contiguous": Case(lambda x: (x.sin() @ x.T).sum(), lambda: draw(3, 2).T),
    "expanded": Case(lambda x: (x.sin() * x.sum()).sum(), lambda: draw(1).expand(3)),
    "float32": Case(lambda x: (x.sin() * x.sum()).sum(), lambda: draw(3, dtype=torch.float32)),
    "kinks": Case(lambda x: (x.relu() ** 2).sum(), lambda: draw(4) - 0.7),
    "in place inside": Case(lambda x: x.sin().mul_(x).sum(), lambda: draw(3)),
}


def table(operation: str) -> dict[str, Case]:
    """Return the cases for an operation."""
    return SCALAR_CASES if operation in ("hessian", "vhp", "hvp") else CASES
