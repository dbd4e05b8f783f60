"""Functions that compute derivatives themselves are differentiated rightly, or refused.

The truth is analytic: the gradient and the Hessian of the energy E(x) = Σ x³ + Π x.
"""

import warnings

import pytest
import torch
import torch.autograd.functional as theirs
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap
from torch.func import hessian as hessian_by_func

import autodiff_core as ours
from autodiff_core import FallbackWarning, MissingForwardDerivativeError, blocks
from tests.core.support.cases import MATRICES, REVERSE, STRATEGIES, call, draw

X = draw(3)
V = draw(3, seed=1)


def energy(x):
    return (x**3).sum() + x.prod()


def gradient(x):
    return 3 * x**2 + x.prod() / x


def hessian(x):
    off = x.prod() / (x[:, None] * x[None, :])
    return off - torch.diag(off.diagonal()) + torch.diag(6 * x)


def by_autograd(x):
    inner = x if x.requires_grad else x.requires_grad_()
    return torch.autograd.grad(energy(inner), inner, create_graph=True)[0]


def by_backward(x):
    inner = x.clone() if x.requires_grad else x.clone().requires_grad_()
    inner.retain_grad()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the reference cycle
        energy(inner).backward(create_graph=True)
    return inner.grad


def by_module(x):
    module = torch.nn.Linear(3, 1, bias=False).to(x.dtype)
    return grad(lambda y: functional_call(module, {"weight": V[None]}, (y.sin(),)).sum())(x)


INNER = {
    "vjp": (lambda x: ours.vjp(energy, x, create_graph=True)[1], gradient),
    "hvp with the point": (lambda x: ours.hvp(energy, x, x, create_graph=True)[1], None),
    "torch's jacobian": (lambda x: theirs.jacobian(energy, x, create_graph=True), gradient),
    "torch's hessian": (lambda x: theirs.hessian(energy, x, create_graph=True), hessian),
    "torch's hvp": (lambda x: theirs.hvp(energy, x, x, create_graph=True)[1], None),
    "autograd.grad": (by_autograd, gradient),
    "func.grad": (grad(energy), gradient),
    "func.jacrev": (jacrev(energy), gradient),
    "func.jacfwd": (jacfwd(energy), gradient),
    "func.hessian": (hessian_by_func(energy), hessian),
    "func.jvp": (lambda x: jvp(energy, (x,), (x,))[1], lambda x: gradient(x) @ x),
    "laplacian": (
        lambda x: jacfwd(grad(lambda y: (y**3).sum()))(x).diagonal().sum(),
        lambda x: 6 * x.sum(),
    ),
    "laplacian of many": (
        lambda x: vmap(lambda y: hessian_by_func(lambda z: (z**4).sum())(y).diagonal().sum())(
            torch.stack([x, 2 * x])
        ),
        lambda x: torch.stack([12 * (x**2).sum(), 48 * (x**2).sum()]),
    ),
    "a module": (by_module, lambda x: V * x.cos()),
}
for name in STRATEGIES:
    INNER[f"jacobian by {name}"] = (
        lambda x, name=name: call("jacobian", energy, x, name, create_graph=True),
        gradient,
    )
for name in REVERSE:
    INNER[f"hessian by {name}"] = (
        lambda x, name=name: call("hessian", energy, x, name, create_graph=True),
        hessian,
    )


def _truth(inner):
    return INNER[inner][1] or (lambda x: hessian(x) @ x)


@pytest.mark.parametrize("engine", ["plain", "auto"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("inner", INNER)
def test_the_jacobian_of_a_derivative(inner, strategy, engine):
    if engine == "auto" and strategy.endswith("loop"):
        pytest.skip("a loop has one engine")
    stream = blocks(INNER[inner][0], X, operation="jacobian", strategy=strategy, engine=engine)
    expected = theirs.jacobian(_truth(inner), X).reshape(stream.shape)
    torch.testing.assert_close(stream.matrix(), expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("inner", ["vjp", "torch's hessian", "func.jacfwd", "laplacian"])
def test_the_hessian_of_a_function_of_a_derivative(inner, strategy):
    stream = blocks(
        lambda x: (INNER[inner][0](x) ** 2).sum(), X, operation="hessian", strategy=strategy
    )
    expected = theirs.hessian(lambda x: (_truth(inner)(x) ** 2).sum(), X)
    torch.testing.assert_close(stream.matrix(), expected)


@pytest.mark.parametrize("strategy", ["forward-loop", "forward-mode"])
@pytest.mark.parametrize("inner", ["forward-loop", "forward-mode"])
def test_forward_mode_within_forward_mode_over_reverse_is_refused(inner, strategy):
    with pytest.raises(MissingForwardDerivativeError, match="uses torch's forward mode itself"):
        call(
            "jacobian", lambda x: call("hessian", energy, x, inner, create_graph=True), X, strategy
        )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_backward_inside(strategy):
    if strategy == "vectorize":
        with pytest.raises(RuntimeError, match="keeps gradients of its own"):
            call("jacobian", by_backward, X, strategy)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        given = call("jacobian", by_backward, X, strategy)
    torch.testing.assert_close(given, hessian(X))


@pytest.mark.parametrize("operation", MATRICES)
def test_tangents_around_the_caller_reach_the_derivative(operation):
    derivative = getattr(ours, operation)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(X, V)
        image = derivative(energy, dual, create_graph=True)
        tangent = torch.autograd.forward_ad.unpack_dual(image).tangent
    truth = gradient if operation == "jacobian" else hessian
    torch.testing.assert_close(tangent, jvp(truth, (X,), (V,))[1])


@pytest.mark.parametrize("strategy", REVERSE)
def test_reverse_mode_within_a_transformation_is_refused(strategy):
    with pytest.raises(RuntimeError, match="functorch"):
        jacfwd(lambda x: call("jacobian", energy, x, strategy, create_graph=True))(X)


@pytest.mark.parametrize("strategy", ["forward-loop", "forward-mode"])
@pytest.mark.parametrize("transformation", [jacfwd, jacrev])
@pytest.mark.filterwarnings("ignore::autodiff_core.FallbackWarning")
def test_forward_mode_within_a_transformation(transformation, strategy):
    given = transformation(
        lambda x: call("jacobian", lambda y: y**3, x, strategy, create_graph=True).sum(0)
    )(X)
    torch.testing.assert_close(given, torch.diag(6 * X))


@pytest.mark.parametrize("engine", ["plain", "auto"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_module_that_is_moved_inside_the_function(strategy, engine):
    module = torch.nn.Linear(3, 2)
    weight = module.weight.detach().to(X.dtype)

    def function(x):
        return module.to(x)(x.sin())

    for _ in range(2):
        stream = blocks(function, X, operation="jacobian", strategy=strategy, engine=engine)
        torch.testing.assert_close(stream.matrix(), weight * X.cos())
    assert module.weight.sum().isfinite()
