"""Derivatives through factorized matrices and through sums by index, with rules of their own."""

from functools import cache

import pytest
import torch
from torch.nn import functional

from autodiff_core import blocks
from autodiff_core._programs import program
from autodiff_core._programs.rules import lowering
from tests.core.support.cases import MATRICES, draw
from tests.core.support.operators import BATCHED


@cache
def given(*shape):
    return draw(*shape)


_EYE = torch.eye(4, dtype=torch.float64)


def _matrix(x):
    """Return a well-conditioned 4 x 4 matrix."""
    return x + x[:, :1] * x[:1] + 4 * _EYE


def _matrices(x):
    """Return 3 x 2 well-conditioned matrices, of which some are not contiguous."""
    return (x[None, None] * given(3, 2, 4, 4)).mT + 4 * _EYE


def _phases(x):
    """Return a well-conditioned complex matrix."""
    return torch.complex(_matrix(x), x.mT)


# Each function of a 4 x 4 matrix passes through the solution of systems with one or many matrices.
SOLUTIONS = {
    "solve": lambda x: torch.linalg.solve(_matrix(x), given(4, 3) * x[:, :1]),
    "solve a vector": lambda x: torch.linalg.solve(_matrix(x), x[1]),
    "solve from the right": lambda x: torch.linalg.solve(_matrix(x), given(3, 4).cos(), left=False),
    "solve transposed": lambda x: torch.linalg.solve(_matrix(x).mT, x[:, :2]),
    "solve many": lambda x: torch.linalg.solve(_matrices(x), given(3, 2, 4, 5).sin()),
    "solve many from the right": lambda x: torch.linalg.solve(
        _matrices(x), given(3, 2, 5, 4) * x[0], left=False
    ),
    "solve many for one": lambda x: torch.linalg.solve(_matrices(x), x[:, :2]),
    "solve one for many": lambda x: torch.linalg.solve(_matrix(x), given(3, 4, 2).mT.mT * x[1, 2]),
    "solve with a batch of one": lambda x: torch.linalg.solve(_matrix(x)[None], x[:, :2]),
    "solve, complex": lambda x: torch.linalg.solve(_phases(x), _phases(x.mT)[:, :2]).abs(),
    "solve many, complex": lambda x: torch.linalg.solve(_phases(x) * given(3, 1, 1), x + 0j).imag,
    "factors": lambda x: torch.linalg.lu_solve(
        *torch.linalg.lu_factor(_matrix(x)), x[:, :3], adjoint=True
    ),
    "inverse": lambda x: torch.linalg.inv(_matrices(x)),
    "logarithm of determinants": lambda x: torch.linalg.slogdet(_matrices(x)).logabsdet,
    "determinant": lambda x: torch.linalg.det(_matrix(x)) * x,
    "triangular": lambda x: torch.linalg.solve_triangular(_matrix(x), x[:, 1:], upper=False),
    "triangular from the right": lambda x: torch.linalg.solve_triangular(
        _matrix(x), x[1:], upper=True, left=False, unitriangular=True
    ),
    "triangular many": lambda x: torch.linalg.solve_triangular(
        _matrices(x), given(3, 2, 4, 3) * x[2, 1], upper=True
    ),
    "triangular many from the right": lambda x: torch.linalg.solve_triangular(
        _matrices(x), x[:3], upper=False, left=False
    ),
    "triangular one for many": lambda x: torch.linalg.solve_triangular(
        _matrix(x)[None], given(3, 4, 2) * x[:, :1], upper=False
    ),
    "triangular, complex": lambda x: torch.linalg.solve_triangular(
        _phases(x).mH, _phases(x)[1:].mT, upper=True
    ).abs(),
    "Cholesky": lambda x: torch.cholesky_solve(
        x[:, :2], torch.linalg.cholesky(_matrix(x) @ _matrix(x).mT)
    ),
    "Cholesky many": lambda x: torch.cholesky_solve(
        given(2, 4, 3) * x[0, 0],
        torch.linalg.cholesky(_matrices(x) @ _matrices(x).mT, upper=True),
        True,
    ),
    "normal distribution": lambda x: torch.distributions.MultivariateNormal(
        x[0], _matrix(x) @ _matrix(x).mT, validate_args=False
    ).log_prob(given(5, 4)),
    "eigenvalues and vectors": lambda x: (
        torch.linalg.eigh(x + x.mT)[1] ** 2 * torch.linalg.eigvalsh(x + x.mT)
    ),
    "singular values": lambda x: torch.linalg.svdvals(_matrices(x)[0]),
}

INDEX = torch.tensor([[3, 0, 0], [2, 1, 3]])
ROWS = torch.tensor([2, 0, 3])


def _bags(x, **options):
    offsets = torch.tensor([0, 2, 2])
    return functional.embedding_bag(INDEX.flatten(), x, offsets, **options).sin()


# Each function of a 4 x 4 matrix takes or sums elements by index.
INDEXED = {
    "embedding": lambda x: functional.embedding(INDEX, x).sin().mean(1),
    "gather of lines": lambda x: x.sin().gather(0, INDEX.flatten()[:, None].expand(6, 4)),
    "gather of elements": lambda x: x.sin().gather(1, INDEX) * x.gather(0, INDEX.flip(1)),
    "scatter_add of lines": lambda x: torch.zeros_like(x).scatter_add(
        0, INDEX.flatten()[:, None].expand(6, 4), x.repeat(2, 1)[:6].exp()
    ),
    "scatter_add of elements": lambda x: x.cos().scatter_add(1, INDEX, x[:2, 1:].exp()),
    "scatter": lambda x: x.cos().scatter(0, torch.tensor([[1, 0, 2]]), x[:1, 1:] ** 2),
    "scatter of a number": lambda x: x.cos().scatter(1, INDEX[:, :2], 2.0),
    "index_put": lambda x: x.sin().index_put((ROWS, ROWS.flip(0)), x[0, 1:] ** 2),
    "index_put, twice": lambda x: x.sin().index_put((INDEX,), x[:3, None].sum(0), accumulate=True),
    "index_put of sums": lambda x: x.sin().index_put((INDEX[0],), x[1:] ** 2, accumulate=True),
    "index_copy": lambda x: x.exp().index_copy(1, ROWS, x[:, :3] ** 2),
    "index_fill": lambda x: x.exp().index_fill(0, ROWS, 3.0) * x,
    "index_fill of a value": lambda x: x.exp().index_fill(1, ROWS, x[0, 0] ** 2),
    "index_put of one": lambda x: x.sin().index_put((ROWS,), x[1, 1] ** 2, accumulate=True),
    "index_add": lambda x: x.exp().index_add(-1, INDEX[0], x[:, 1:].sin()),
    "mask": lambda x: x[x.detach() > 0.6].exp(),
    "mask of rows": lambda x: x[torch.tensor([True, False, True, True])] ** 3,
    "write into a mask": lambda x: (
        x.sin()
        .masked_fill(x > 0.5, 0)
        .index_put((torch.tensor([False, True, True, False]),), x[2:] ** 2)
    ),
}
# torch's forward mode has no derivative of these, or another one.
FIRST_ORDER = {
    "embedding with padding": lambda x: functional.embedding(INDEX, x, padding_idx=0).sin(),
    "embedding by frequency": lambda x: functional.embedding(
        INDEX, x, padding_idx=1, scale_grad_by_freq=True
    ),
    "bags, mean": lambda x: _bags(x, mode="mean", padding_idx=0),
    "bags, sum": lambda x: _bags(x, mode="sum"),
    "bags, weights": lambda x: _bags(x, mode="sum", per_sample_weights=given(6)),
    "bags, last offset": lambda x: functional.embedding_bag(INDEX, x, mode="mean"),
}


# The tangents of the product of the diagonal choose between branches, of which one is constant.
REFUSED = {("determinant", "hessian", "forward-mode")}

RULED = {
    getattr(torch.ops.aten, name)
    for name in (
        *("linalg_lu_solve", "linalg_solve_triangular", "cholesky_solve", "embedding", "gather"),
        *("embedding_dense_backward", "_embedding_bag_backward", "scatter", "scatter_add"),
        *("index", "index_put", "index_add", "index_copy", "index_fill", "zero", "fill"),
    )
}


@pytest.fixture(autouse=True)
def no_rule_gives_up(monkeypatch):
    """Fail where an operator that has a rule is batched by vmap all the same."""
    general = lowering._general

    def watched(builder, call):
        packet = call.operator.overloadpacket
        assert packet not in RULED, packet
        return general(builder, call)

    monkeypatch.setattr(lowering, "_general", watched)
    monkeypatch.setattr(program, "MANY_STEPS", 1)


def assert_rows(func, operation, strategy, used="captured"):
    x = draw(4, 4)
    expected = getattr(torch.autograd.functional, operation)(func, x)
    stream = blocks(
        func, x, operation=operation, strategy=strategy, chunk_size=5, engine="captured"
    )
    torch.testing.assert_close(stream.matrix(), expected.reshape(-1, 16), rtol=1e-10, atol=1e-11)
    assert stream.engine == used, stream.engine_refusal


@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("operation", MATRICES)
@pytest.mark.parametrize("name", [*SOLUTIONS, *INDEXED])
def test_numbers_are_those_of_torch(name, operation, strategy):
    inner = {**SOLUTIONS, **INDEXED}[name]
    func = inner if operation == "jacobian" else lambda x: (inner(x) ** 2).sum()
    used = "plain" if (name, operation, strategy) in REFUSED else "captured"
    assert_rows(func, operation, strategy, used)


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_bags_of_rows(name):
    assert_rows(FIRST_ORDER[name], "jacobian", "vectorize")


CONTRACTIONS = {
    "vector and matrix": lambda x: ((x[0, :, None] - draw(5)) ** 2).logsumexp(0),
    "batch of vectors": lambda x: ((x[:, :, None] * draw(4, 4, 5)).sin()).sum(1) ** 2,
    "several dimensions": lambda x: (x[:, None, :, None] * draw(4, 3, 4, 2)).sum((0, 2)).tanh(),
    "two of the result": lambda x: (x[None, :, None] * draw(3, 4, 2, 4)).sum(-1, keepdim=True) ** 2,
    "also the product": lambda x: _of_product(x[:, :, None] * draw(4, 4, 3)),
    "nothing to add": lambda x: (x * draw(4, 4)).sum(0) ** 2,
}


def _of_product(product):
    return product.sum(1).sin()[:, None] * product


@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("operation", MATRICES)
@pytest.mark.parametrize("name", CONTRACTIONS)
def test_sums_of_products_with_another_dimension(name, operation, strategy):
    inner = CONTRACTIONS[name]
    assert_rows(
        inner if operation == "jacobian" else lambda x: (inner(x) ** 2).sum(), operation, strategy
    )
