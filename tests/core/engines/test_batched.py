"""Products with many vectors at once, in chunks."""

import pytest
import torch

from autodiff_core import blocks
from tests.core.support import cases
from tests.core.support.cases import (
    CHUNK_SIZES,
    PRODUCTS,
    STRATEGIES,
    STRATEGIES_OF,
    assert_same,
    call,
    draw,
)

COUNT = 5
WAYS = [(operation, strategy) for operation in PRODUCTS for strategy in STRATEGIES_OF[operation]]


def _vector(x, y):
    return x.sin()[:, None] * y, (x * x).sum()


def _scalar(x, y):
    return (x**3).sum() * (y**2).sum()


def _setting(operation):
    func = _vector if operation in ("vjp", "jvp") else _scalar
    shapes = [(3, 2), ()] if operation == "vjp" else [(3,), (2,)]
    vectors = tuple(draw(COUNT, *shape, seed=index) for index, shape in enumerate(shapes))
    return func, (draw(3), draw(2)), vectors


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@pytest.mark.parametrize(("operation", "strategy"), WAYS)
def test_each_vector_is_multiplied_as_if_alone(operation, strategy, chunk_size):
    func, point, vectors = _setting(operation)
    value, product = call(
        operation, func, point, strategy, v=vectors, stacked=True, chunk_size=chunk_size
    )
    for index in range(COUNT):
        alone = tuple(part[index] for part in vectors)
        expected = cases.torch_call(operation, func, point, alone)
        assert_same((value, tuple(part[index] for part in product)), expected)


@pytest.mark.parametrize(("operation", "strategy"), WAYS)
def test_the_stream_gives_the_same_products(operation, strategy):
    func, point, vectors = _setting(operation)
    stream = blocks(
        func, point, operation=operation, strategy=strategy, vectors=vectors, chunk_size=2
    )
    given = list(stream)
    assert [(block.axis, block.start, block.stop) for block in given] == [
        ("rows", 0, 2),
        ("rows", 2, 4),
        ("rows", 4, 5),
    ]
    _, product = call(operation, func, point, strategy, v=vectors, stacked=True)
    assert_same(
        torch.cat([block.values for block in given]),
        torch.cat([part.reshape(COUNT, -1) for part in product], dim=1),
    )
    assert stream.shape == (COUNT, sum(part[0].numel() for part in product))


@pytest.mark.parametrize(("operation", "strategy"), WAYS)
def test_stacked_products_are_differentiable(operation, strategy):
    func, point, vectors = _setting(operation)

    def product(*arguments):
        result = call(
            operation,
            func,
            arguments[:2],
            strategy,
            v=arguments[2:],
            stacked=True,
            create_graph=True,
            chunk_size=3,
        )
        return result[1]

    arguments = tuple(part.clone().requires_grad_() for part in (*point, *vectors))
    assert torch.autograd.gradcheck(product, arguments)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_vectors_give_an_empty_product(strategy):
    _, product = call("jvp", torch.sin, draw(3), strategy, v=draw(0, 3), stacked=True)
    assert product.shape == (0, 3)
