"""Sparse derivatives equal dense ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autodiff_core import blocks
from autodiff_core.sparse import (
    PatternError,
    SparseEvaluator,
    SparsityPattern,
    colour,
    detect_sparsity,
    sparse_hessian,
    sparse_jacobian,
)
from tests.core.sparse.test_detection import COVERED

functional = torch.nn.functional


def dense(func, inputs, operation="jacobian"):
    return blocks(func, inputs, operation=operation, strategy="reverse-loop").matrix()


def assert_equal(sparse, expected):
    assert sparse.layout == torch.sparse_csr
    assert sparse.shape == expected.shape
    torch.testing.assert_close(sparse.to_dense(), expected, rtol=1e-10, atol=1e-10)


def point(size=24):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(size, generator=generator, dtype=torch.float64) + 0.3


@pytest.mark.parametrize("name", sorted(set(COVERED) - {"a custom function", "transform"}))
def test_a_sparse_jacobian_equals_the_dense_one(name):
    x = point()
    assert_equal(sparse_jacobian(COVERED[name], x), dense(COVERED[name], x))


@pytest.mark.parametrize("strategy", ["auto", "reverse-loop", "vectorize", "forward-mode"])
@pytest.mark.parametrize("kind", ["column", "row", "bidirectional", "star"])
@pytest.mark.parametrize("chunk_size", [None, 1, 2])
def test_each_kind_and_strategy_gives_the_same(kind, strategy, chunk_size):
    def energy(x):
        return (x[1:] * x[:-1] ** 2).sum() + x[0] * (x**2).sum()

    if strategy == "forward-mode" and kind in ("row", "bidirectional"):
        pytest.skip("products from the left have no forward mode")
    x = point(9)
    colouring = colour(detect_sparsity(energy, x, operation="hessian"), kind=kind)
    options = {"sparsity": colouring, "strategy": strategy, "chunk_size": chunk_size}
    assert_equal(sparse_hessian(energy, x, **options), dense(energy, x, "hessian"))


def test_several_inputs_and_outputs_are_concatenated():
    def f(a, b):
        return {"p": a[:, :2] * b[0], "q": (b.sin(), a.sum(0))}

    inputs = (point(6).reshape(2, 3), point(4))
    assert_equal(sparse_jacobian(f, inputs), dense(f, inputs))


def test_a_pattern_is_reused_at_other_points():
    def f(x):
        return (x[1:] - x[:-1]).tanh()

    colouring = colour(detect_sparsity(f, point()))
    for scale in (1, -2):
        x = scale * point()
        assert_equal(sparse_jacobian(f, x, sparsity=colouring), dense(f, x))
    assert_equal(sparse_jacobian(f, x, sparsity=colouring.pattern), dense(f, x))
    with pytest.raises(PatternError, match="the colouring is of 24 elements, and there are 9"):
        sparse_jacobian(f, point(9), sparsity=colouring)


def test_a_constant_function_has_no_entries():
    result = sparse_jacobian(lambda x: torch.ones(3, dtype=x.dtype) + 0 * x.detach()[:3], point(5))
    assert result.shape == (3, 5)
    assert result.values().numel() == 0


def test_a_pattern_may_contain_zeros():
    def f(x):
        return x.sin()

    everything = SparsityPattern.from_scipy(np.ones((4, 4)))
    assert_equal(sparse_jacobian(f, point(4), sparsity=everything), dense(f, point(4)))


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("kind", ["column", "row", "bidirectional"])
def test_an_evaluator_follows_the_point(kind, compile):
    def f(a, b):
        return {"p": a[1:] * a[:-1] + b[0], "q": (b.sin(), a.sum()[None])}

    inputs = (point(7), point(4))
    colouring = colour(detect_sparsity(f, inputs), kind=kind)
    if compile and kind != "column":
        pytest.skip("one compilation takes seconds enough")
    evaluate = SparseEvaluator(f, inputs, colouring, compile=compile)
    assert (evaluate.engine, evaluate.refusal) == ("compiled" if compile else "traced", None)
    for scale in (1, -2, 3):
        moved = (scale * inputs[0], inputs[1] + scale)
        assert_equal(evaluate(moved), dense(f, moved))


def in_halves(x):
    first, second = x.split(4)
    return torch.cat((first * second, (first.sin() + 2) * second.flip(0)))


def written_in_place(x):
    around = x.new_zeros(x.shape[0] + 2)
    around[1:-1] = x
    around.index_add_(0, torch.arange(8), x * x)
    return around[2:] * around[:-2]


def filtered(x):
    image = x.reshape(1, 2, 2, 2)
    kernels = torch.linspace(-1, 1, 36, dtype=x.dtype).reshape(2, 2, 3, 3)
    hidden = torch.nn.functional.conv2d(image, kernels, x.new_ones(2), padding=1).tanh()
    return torch.nn.functional.conv2d(
        hidden, kernels, stride=(1, 2), padding=(2, 1), dilation=(2, 1)
    )


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("f", [in_halves, written_in_place, filtered])
def test_an_evaluator_computes_once_what_depends_on_the_colours_alone(f, compile):
    colouring = colour(detect_sparsity(f, point(8)))
    evaluate = SparseEvaluator(f, point(8), colouring, compile=compile)
    assert (evaluate.engine, evaluate.refusal) == ("compiled" if compile else "traced", None)
    for scale in (1, -2, 3):
        assert_equal(evaluate(scale * point(8)), dense(f, scale * point(8)))


def test_an_evaluator_of_hessians():
    def energy(x):
        return (x[1:] * x[:-1] ** 2).sum() + x[0] * (x**2).sum()

    colouring = colour(detect_sparsity(energy, point(9), operation="hessian"), symmetric=True)
    evaluate = SparseEvaluator(energy, point(9), colouring, operation="hessian")
    assert_equal(evaluate(3 * point(9)), dense(energy, 3 * point(9), "hessian"))


# Springs of a triangulated strip, whose ends are given from both sides.
FIRST = torch.tensor([0, 1, 2, 3, 0, 1, 2, 4])
SECOND = torch.tensor([1, 2, 3, 4, 2, -2, 4, 0])


def springs(x):
    between = x.reshape(5, 2)[SECOND] - x.reshape(5, 2)[FIRST]
    return (between.square().sum(1).sqrt() - 1).pow(2).sum()


def springs_by_columns(x):
    columns = x.reshape(2, 5)
    return ((columns[:, SECOND] - columns[:, FIRST]) ** 4).sum()


def sums_at_nodes(x):
    terms = (x.reshape(5, 2)[FIRST] ** 2).sin()
    return torch.ones(5, 2).to(x).index_add(0, SECOND % 5, terms).square().sum()


def scattered(x):
    terms = x.reshape(5, 2)[FIRST] ** 3
    index = FIRST.flip(0)[:, None].expand(8, 2)
    return torch.zeros(5, 2).to(x).scatter_add(0, index, terms).square().sum()


def scattered_apart(x):
    terms = x.reshape(5, 2)[FIRST] ** 3
    index = torch.stack([FIRST, FIRST.flip(0)], 1)
    return torch.zeros(5, 2).to(x).scatter_add(0, index, terms).square().sum()


SUMS = [springs, springs_by_columns, sums_at_nodes, scattered, scattered_apart]


# A compilation takes seconds.
@pytest.mark.parametrize(("f", "compile"), [*((f, False) for f in SUMS), (springs, True)])
def test_an_evaluator_sums_by_index(f, compile):
    colouring = colour(detect_sparsity(f, point(10), operation="hessian"), symmetric=True)
    evaluate = SparseEvaluator(f, point(10), colouring, operation="hessian", compile=compile)
    assert (evaluate.engine, evaluate.refusal) == ("compiled" if compile else "traced", None)
    for scale in (1, -2):
        assert_equal(evaluate(scale * point(10)), dense(f, scale * point(10), "hessian"))


def test_an_evaluator_uses_the_plain_engine_if_a_trace_is_wrong():
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, gradient):
            return 2 * ctx.saved_tensors[0] * gradient

    colouring = colour(SparsityPattern.from_scipy(np.eye(5)))
    evaluate = SparseEvaluator(lambda x: Hidden.apply(x), point(5), colouring)
    assert evaluate.engine == "plain"
    assert evaluate.refusal
    assert_equal(evaluate(point(5)), torch.diag(2 * point(5)))
    message = r"the pattern has the shape \(5, 5\), and the derivative \(4, 5\)"
    with pytest.raises(PatternError, match=message):
        SparseEvaluator(lambda x: x[1:], point(5), colouring)


INDEX = torch.tensor([3, 0, 5, 5, 1, 7, 2])
STEPS = {
    "sin": torch.sin,
    "tanh of double": lambda x: (2 * x).tanh(),
    "square": lambda x: x * x,
    "cube": lambda x: x**3 / 3,
    "exponential": lambda x: (x / 4).clamp(-3, 3).exp(),
    "relu": torch.relu,
    "absolute": lambda x: x.abs() + 0.1,
    "sigmoid": torch.sigmoid,
    "roll": lambda x: x + x.roll(1),
    "flip": lambda x: x.flip(0),
    "neighbours": lambda x: functional.pad(x[1:] * x[:-1], (0, 1)),
    "gather": lambda x: x[INDEX % len(x)],
    "scatter": lambda x: torch.zeros(8, dtype=x.dtype).index_add(
        0, INDEX, x[:7] if len(x) > 6 else functional.pad(x, (0, 7 - len(x)))
    ),
    "pairs": lambda x: torch.outer(x[:2], x[-2:]).reshape(-1),
    "mean of halves": lambda x: torch.cat([x, x.view(2, -1).mean(1) if len(x) % 2 == 0 else x]),
    "running sum": lambda x: x[:5].cumsum(0),
    "softmax": lambda x: torch.cat([x[:3].softmax(0), x[3:]]),
    "matrix": lambda x: x @ torch.eye(len(x), dtype=x.dtype).roll(2, 1) - x,
    "convolution": lambda x: functional.conv1d(
        x.view(1, 1, -1), torch.ones(1, 1, 3, dtype=x.dtype), padding=1
    ).view(-1),
    "choice": lambda x: torch.where(x > 0.5, x.flip(0), x),
    "zero": lambda x: x * 0 + 1,
    "sort": lambda x: x.sort().values,
    "floor": lambda x: x.floor() + x,
    "norm": lambda x: x / (x.square().sum() + 1).sqrt(),
    "strided": lambda x: x[::2],
    "stack": lambda x: torch.stack([x, x.cos()], 1).reshape(-1)[:10],
}


@given(
    names=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5),
    other=st.lists(st.sampled_from(sorted(STEPS)), min_size=0, max_size=2),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=200, deadline=None)
def test_compositions_of_operations(names, other, seed):
    def composed(x):
        first, second = x, x
        for name in names:
            first = STEPS[name](first)
        for name in other:
            second = STEPS[name](second)
        shared = min(len(first), len(second))
        return first[:shared] * second[:shared]

    x = torch.rand(8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    try:
        composed(x)
    except (IndexError, RuntimeError):
        return  # the operations cannot be composed
    expected = dense(composed, x)
    pattern = detect_sparsity(composed, x)
    missing = (expected.numpy() != 0) & ~pattern.to_scipy().toarray()
    assert not missing.any()
    assert_equal(sparse_jacobian(composed, x, sparsity=pattern), expected)
