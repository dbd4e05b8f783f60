"""Sums of stacks that are zero outside a support equal sums of dense stacks."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autodiff_core import blocks
from autodiff_core._programs.stack_sums import combine
from autodiff_core._programs.stacks import Index, Stack
from autodiff_core._tensors.linear_combination import Coefficient

COUNT = 3
SHAPE = (4, 5)


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    """Draw a stack that broadcasts to SHAPE: dense, or with a range or positions as its support."""
    shape = draw(st.sampled_from([SHAPE, (1, 5), (4, 1), (5,), (1,), ()]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 100)))
    dims = [dim for dim, size in enumerate(shape) if size > 1]
    dim = draw(st.sampled_from([None, *dims]))
    if dim is None:
        data = torch.randn(COUNT, *shape, generator=generator)
        if draw(st.booleans()) and shape == SHAPE:
            data = torch.randn(COUNT, 5, 4, generator=generator).mT
        return Stack(data, shape)
    size = shape[dim]
    start = draw(st.integers(0, size - 1))
    support: Index = range(start, draw(st.integers(start, size)))
    if draw(st.booleans()):
        chosen = draw(st.sets(st.integers(0, size - 1), max_size=size))
        support = torch.tensor(sorted(chosen), dtype=torch.int64)
    compact = [*shape[:dim], len(support), *shape[dim + 1 :]]
    return Stack(torch.randn(COUNT, *compact, generator=generator), shape, dim, support)


@st.composite
def coefficients(draw: st.DrawFn) -> Coefficient:
    kind = draw(st.sampled_from(["none", "number", "tensor"]))
    if kind == "tensor":
        shape = draw(st.sampled_from([SHAPE, (1, 5), (4, 1), (5,), ()]))
        return torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    return None if kind == "none" else draw(st.sampled_from([-1.0, 0.5, 2.0]))


def expected(terms: list[tuple[Stack, Coefficient]]) -> Tensor:
    total = torch.zeros(COUNT, *SHAPE)
    for stack, coefficient in terms:
        missing = len(SHAPE) - len(stack.shape)
        dense = stack.dense().reshape(COUNT, *(1,) * missing, *stack.shape)
        total = total + dense * (1.0 if coefficient is None else coefficient)
    return total


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(stacks(), coefficients()), min_size=1, max_size=4), st.data())
def test_sums_equal_those_of_dense_stacks(
    terms: list[tuple[Stack, Coefficient]], data: st.DataObject
) -> None:
    spare = data.draw(st.one_of(st.just([]), st.lists(st.booleans(), min_size=4, max_size=4)))
    spare = spare[: len(terms)]
    total = expected(terms)
    before = [stack.data.clone() for stack, _ in terms]
    given_stacks, factors = zip(*terms, strict=True)
    found = combine(given_stacks, factors, SHAPE, torch.float32, spare)
    torch.testing.assert_close(found.dense(), total, rtol=1e-5, atol=1e-5)
    assert found.shape == SHAPE
    for place, (stack, kept) in enumerate(zip(given_stacks, before, strict=True)):
        assert (spare and spare[place]) or torch.equal(stack.data, kept)


def test_a_sum_overwrites_a_term_that_is_not_used_again() -> None:
    first, second = (Stack(torch.randn(COUNT, *SHAPE), SHAPE) for _ in range(2))
    factor = torch.randn(SHAPE)
    places = [stack.data.data_ptr() for stack in (first, second)]
    found = combine([first, second], [None, factor], SHAPE, torch.float32, [False, True])
    assert found.data.data_ptr() == places[1]
    found = combine([found, second], [factor, 2.0], SHAPE, torch.float32, [True, False])
    assert found.data.data_ptr() == places[1]
    found = combine([first, second], [None, factor], SHAPE, torch.float32)
    assert found.data.data_ptr() not in places


def test_a_program_does_not_modify_its_vectors() -> None:
    """A second application gives the same images: its constants are unchanged too."""

    def function(x: Tensor) -> Tensor:
        y = x.sin() * 3 + x.exp()
        return y * y.cos() + y @ torch.ones(6, 6, dtype=x.dtype) + x

    x = torch.linspace(0, 1, 6, dtype=torch.float64)
    vectors = torch.randn(4, 6, dtype=torch.float64)
    kept = vectors.clone()
    stream = blocks(
        function, x, operation="jvp", strategy="forward-mode", engine="captured", vectors=vectors
    )
    first, again = stream.matrix(), stream.matrix()
    assert stream.engine == "captured"
    assert torch.equal(first, again)
    assert torch.equal(vectors, kept)
    jacobian = torch.func.jacrev(function)(x)
    torch.testing.assert_close(first, vectors @ jacobian.T)
