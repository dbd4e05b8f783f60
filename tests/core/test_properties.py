"""Randomly composed functions agree with torch and with central differences."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.core.support import cases
from tests.core.support.cases import (
    MATRICES,
    PRODUCTS,
    STRATEGIES,
    STRATEGIES_OF,
    assert_same,
    call,
    draw,
)

UNARY: list[Callable[[Tensor], Tensor]] = [
    torch.sin,
    torch.tanh,
    torch.exp,
    lambda x: x * x,
    lambda x: (1 + x * x).log(),
    torch.nn.functional.softplus,
    lambda x: x.cumsum(0) if x.dim() else x * 2,
    lambda x: x.flip(0) if x.dim() else -x,
    lambda x: x.softmax(-1) if x.dim() else x.sigmoid(),
    lambda x: x.reshape(-1),
    lambda x: x.transpose(0, -1) if x.dim() > 1 else x,
    lambda x: x.mean(),
    lambda x: x @ x.transpose(-1, -2) / 3 if x.dim() == 2 else x.pow(3),
    lambda x: x.clone().mul_(x),
    lambda x: x.expand(2, *x.shape).sum(0),
    lambda x: x.clamp(-0.3, 0.7),
    lambda x: torch.stack([x, x.cos()]).prod(0),
    lambda x: x.detach() * x,
]

BINARY: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda x, y: x * y.sum(),
    lambda x, y: x + y.mean(),
    lambda x, y: torch.outer(x.reshape(-1), y.reshape(-1)).tanh(),
    lambda x, y: torch.cat([x.reshape(-1), y.reshape(-1)]),
    lambda x, y: torch.where(x > 0.5, x, x * y.prod()),
    lambda x, y: x,
    lambda x, y: x / (2 + y.abs().sum()),
]

SHAPES: list[tuple[int, ...]] = [(), (1,), (3,), (1, 1), (2, 2), (2, 3), (4,)]


@dataclass(frozen=True)
class Composition:
    """A function that applies operations to a growing list of tensors.

    Attributes:
        shapes: The shapes of the inputs.
        steps: The applied operations and their operands: (is binary, operation, first, second).
        outputs: The returned tensors, counted from the end.
        is_tuple: Whether a single output is returned as a tuple.
    """

    shapes: tuple[tuple[int, ...], ...]
    steps: tuple[tuple[bool, int, int, int], ...]
    outputs: tuple[int, ...]
    is_tuple: bool

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Evaluate the function."""
        tensors = list(inputs)
        for is_binary, operation, first, second in self.steps:
            x, y = tensors[first % len(tensors)], tensors[second % len(tensors)]
            made = BINARY[operation % len(BINARY)](x, y) if is_binary else None
            tensors.append(UNARY[operation % len(UNARY)](x) if made is None else made)
        returned = [tensors[-1 - index % len(tensors)] for index in self.outputs]
        return tuple(returned) if self.is_tuple or len(returned) > 1 else returned[0]

    def scalar(self, *inputs: Tensor) -> Tensor:
        """Return a scalar function of the outputs."""
        parts = [part.sin().sum() for part in cases.leaves(self(*inputs))]
        return torch.stack(parts).sum()

    def point(self, seed: int) -> tuple[Tensor, ...]:
        """Return a point."""
        return tuple(draw(*shape, seed=seed + i) for i, shape in enumerate(self.shapes))


_numbers = st.integers(0, 40)
compositions = st.builds(
    Composition,
    shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3).map(tuple),
    steps=st.lists(
        st.tuples(st.booleans(), _numbers, _numbers, _numbers), min_size=1, max_size=5
    ).map(tuple),
    outputs=st.lists(st.integers(0, 3), min_size=1, max_size=3).map(tuple),
    is_tuple=st.booleans(),
)


@settings(max_examples=500, derandomize=True, deadline=None, database=None)
@given(
    composition=compositions,
    seed=st.integers(0, 1000),
    operation=st.sampled_from((*MATRICES, *PRODUCTS)),
    strategy=st.sampled_from(STRATEGIES),
    chunk_size=st.sampled_from([None, 1, 2, 3, 7]),
)
def test_drawn_functions_agree_with_torch(composition, seed, operation, strategy, chunk_size):
    if strategy not in STRATEGIES_OF.get(operation, STRATEGIES):
        strategy = {"forward-loop": "reverse-loop", "forward-mode": "vectorize"}[strategy]
    is_first = operation in ("jacobian", "vjp", "jvp")
    func = composition if is_first else composition.scalar
    inputs = composition.point(seed)
    options = {}
    if operation in PRODUCTS:
        value = func(*inputs)
        space = value if operation == "vjp" else inputs
        v = tuple(draw(*part.shape, seed=seed + 9) for part in cases.leaves(space))
        options["v"] = v if isinstance(space, tuple) else v[0]
    expected = cases.torch_call(operation, func, inputs, **options)
    result = call(operation, func, inputs, strategy, chunk_size=chunk_size, **options)
    assert_same(result, expected, 1e-8)


@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(composition=compositions, strategy=st.sampled_from(STRATEGIES))
def test_drawn_functions_agree_with_central_differences(composition, strategy):
    # Differences cannot show the derivative of a detached factor or at the kinks of clamp.
    without = {UNARY.index(operation) for operation in (UNARY[-1], UNARY[-3])}
    steps = tuple(
        (is_binary, 0 if operation % len(UNARY) in without else operation, first, second)
        for is_binary, operation, first, second in composition.steps
    )
    func = Composition(composition.shapes, steps, composition.outputs, False).scalar
    inputs, step = composition.point(0), 1e-5
    result = call("jacobian", func, inputs, strategy)
    for number, gradient in enumerate(result):
        direction = draw(*inputs[number].shape, seed=3)
        ahead, behind = list(inputs), list(inputs)
        ahead[number] = ahead[number] + step * direction
        behind[number] = behind[number] - step * direction
        difference = (func(*ahead) - func(*behind)) / (2 * step)
        size = 1 + float(difference.abs()) + float(gradient.abs().sum())
        assert abs(float((gradient * direction).sum() - difference)) < 1e-5 * size
