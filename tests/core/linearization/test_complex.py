"""Complex tensors: the convention of complex.py agrees with analytic derivatives."""

import pytest
import torch

from autodiff_core import NotHolomorphicError, blocks
from tests.core.support import cases
from tests.core.support.cases import CHUNK_SIZES, STRATEGIES, STRATEGIES_OF, assert_same, call, draw


def _z():
    return torch.complex(draw(3), draw(3, seed=1))


def _diag(values):
    return torch.diag(values)


# name: function, point, analytic derivative as a tuple of outputs of tuples of inputs
ANALYTIC = {
    "holomorphic": (
        lambda z: z**2 * z.sum(),
        lambda: (_z(),),
        lambda z: ((_diag(2 * z * z.sum()) + (z**2)[:, None].expand(3, 3),),),
    ),
    "real to complex": (
        lambda x: torch.exp(1j * x),
        lambda: (draw(3),),
        lambda x: ((_diag(1j * torch.exp(1j * x)),),),
    ),
    # |z|² has dy/d(Re z) + i dy/d(Im z) = 2 z
    "complex to real": (
        lambda z: z.real**2 + z.imag**2,
        lambda: (_z(),),
        lambda z: ((_diag(2 * z),),),
    ),
    "imaginary part": (
        lambda z: z.imag * 3,
        lambda: (_z(),),
        lambda z: ((_diag(torch.full_like(z, 3j)),),),
    ),
    "complex and real inputs": (
        lambda z, x: z * x,
        lambda: (_z(), draw(3, seed=2)),
        lambda z, x: ((_diag(x.to(z.dtype)), _diag(z)),),
    ),
    "complex and real outputs": (
        lambda z: (z.sin(), z.abs() ** 2),
        lambda: (_z(),),
        lambda z: ((_diag(z.cos()),), (_diag(2 * z),)),
    ),
    "both": (
        lambda z, x: (z.exp() * x, x**2, z.real * x),
        lambda: (_z(), draw(3, seed=2)),
        lambda z, x: (
            (_diag(z.exp() * x), _diag(z.exp())),
            (torch.zeros(3, 3, dtype=z.dtype), _diag(2 * x)),
            (_diag(x.to(z.dtype)), _diag(z.real)),
        ),
    ),
}


@pytest.mark.parametrize("chunk_size", CHUNK_SIZES)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ANALYTIC)
def test_the_jacobian_is_the_same_under_all_strategies(name, strategy, chunk_size):
    func, make, analytic = ANALYTIC[name]
    point = make()
    given = call("jacobian", func, point, strategy, chunk_size=chunk_size)
    expected = analytic(*point)
    given = given if isinstance(given[0], tuple) else (given,)
    assert_same(given, expected, dtypes=False)
    for line, other in zip(given, expected, strict=True):
        assert [part.is_complex() for part in line] == [part.is_complex() for part in other]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ANALYTIC)
def test_the_stream_gives_the_matrix(name, strategy):
    func, make, analytic = ANALYTIC[name]
    point = make()
    stream = blocks(func, point, operation="jacobian", strategy=strategy, chunk_size=2)
    expected = torch.cat(
        [torch.cat([part.to(torch.complex128) for part in line], 1) for line in analytic(*point)]
    )
    assert stream.dtype == torch.complex128
    assert_same(stream.matrix(), expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_points(strategy):
    z = torch.stack([_z(), 2 * _z()])
    given = call("jacobian", lambda z: z**2, z, strategy, points=True)
    assert_same(given, torch.diag_embed(2 * z))


@pytest.mark.filterwarnings("ignore::autodiff_core.FallbackWarning")
@pytest.mark.parametrize(
    "func", [torch.conj_physical, lambda z: z * z.abs(), lambda z: (z.real, z.real * z)]
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_function_that_is_not_holomorphic_raises(func, strategy):
    with pytest.raises(NotHolomorphicError, match="view_as_real"):
        call("jacobian", func, _z(), strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_hessian_in_complex_inputs_raises(strategy):
    # The gradient of a real function is not holomorphic unless it is constant.
    with pytest.raises(NotHolomorphicError):
        call("hessian", lambda z: (z.abs() ** 4).sum(), _z(), strategy)


@pytest.mark.parametrize("operation", cases.PRODUCTS)
def test_products_are_those_of_torch(operation):
    is_first = operation in ("vjp", "jvp")

    def func(z):
        return z * z.abs() if is_first else (z.abs() ** 4).sum()

    v = torch.complex(draw(3, seed=3), draw(3, seed=4))
    expected = cases.torch_call(operation, func, _z(), v)
    for strategy in STRATEGIES_OF[operation]:
        assert_same(call(operation, func, _z(), strategy, v=v), expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_jacobian_vector_product_is_the_directional_derivative(strategy):
    z, v, step = _z(), torch.complex(draw(3, seed=3), draw(3, seed=4)), 1e-6

    def func(z):
        return z * z.abs()

    _, product = call("jvp", func, z, strategy, v=v)
    difference = (func(z + step * v) - func(z - step * v)) / (2 * step)
    torch.testing.assert_close(product, difference, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_differentiable_results(strategy):
    z = _z().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: call("jacobian", lambda z: z**3, z, strategy, create_graph=True), z
    )
