"""Patterns hold what a function computes from the point: branches, indices, masks, positions."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from autodiff_core.sparse import (
    DetectionError,
    PatternError,
    SparseEvaluator,
    SparsityPattern,
    colour,
    detect_sparsity,
    sparse_jacobian,
)

DOUBLE = torch.float64
SOME = torch.tensor([0, 2, 2, 5, 1, 1, 0, 3, 3, 3, 4, 4, 2, 0, 5, 1, 2, 3, 4, 5])
GRID = torch.tensor([[[[-0.3, 0.2], [1.3, 0.4], [-0.9, -0.97]]]], dtype=DOUBLE)
VOLUME = torch.linspace(-1, 2, 72, dtype=DOUBLE).sin().view(1, 2, 3, 3, 4)
KERNEL = torch.linspace(-1, 1, 24, dtype=DOUBLE).view(3, 2, 2, 2)
SPARSE = torch.tensor([[0.0, 2, 0, 1], [0, 0, 0, 0], [3, 0, 0, 0]], dtype=DOUBLE).to_sparse()


def point():
    return torch.rand(24, dtype=DOUBLE, generator=torch.Generator().manual_seed(3)) + 0.3


def pair(distance):
    return 1 / (distance + 0.1)


def listed(x):
    places = x.view(8, 3)
    distances = (places[:, None] - places).detach().norm(dim=2)
    first, second = torch.nonzero((distances < 0.5) & (distances > 0), as_tuple=True)
    return torch.zeros(8, dtype=DOUBLE).index_add(
        0, first, pair((places[first] - places[second]).square().sum(1))
    )


def listed_by_numpy(x):
    places = x.view(8, 3)
    distances = np.linalg.norm((places[:, None] - places).detach().numpy(), axis=2)
    first, second = map(torch.as_tensor, np.nonzero((distances < 0.5) & (distances > 0)))
    parts = pair((places[first] - places[second]).square().sum(1))
    return torch.zeros(8, dtype=DOUBLE).scatter_add(0, first, parts)


def masked(x):
    places = x.view(8, 3)
    squares = (places[:, None] - places).square().sum(2)
    is_near = (squares < 0.25) & ~torch.eye(8, dtype=torch.bool)
    return torch.where(is_near, pair(squares), 0.0).sum(1)


def weighted(x):
    places = x.view(8, 3)
    squares = (places[:, None] - places).square().sum(2)
    is_near = (squares < 0.25) & ~torch.eye(8, dtype=torch.bool)
    return (is_near.to(x) * pair(squares)).sum(1)


def nearest(x):
    places = x.view(8, 3)
    chosen = torch.cdist(places, places).detach().topk(3, largest=False).indices[:, 1:]
    return pair((places[:, None] - places[chosen]).square().sum(2)).sum(1)


def gradient_inside(x):
    x.requires_grad_()
    value = functional.conv2d(x.view(1, 2, 3, 4), KERNEL, padding=1).pow(3).sum()
    return torch.autograd.grad(value, x, create_graph=True)[0]


def written(x):
    out = torch.zeros(24, dtype=DOUBLE)
    out[3:9] = x[:6] ** 2
    out.view(4, 6)[1].add_(x[6:12])
    out[::2] *= x[0]
    return out


def scattered(reduce, include_self):
    def function(x):
        return (
            x[:6].cos().scatter_reduce(0, SOME % 4, x[4:] ** 2, reduce, include_self=include_self)
        )

    return function


def sampled(mode, padding, align):
    def function(x):
        image = functional.grid_sample(x.view(1, 2, 3, 4), GRID, mode, padding, align)
        places = functional.grid_sample(
            VOLUME[0], x.view(2, 1, 6, 2) * 2 - 1.2, mode, padding, align
        )
        return image, places

    return function


SELECTIONS = {
    "list by radius": listed,
    "list by numpy": listed_by_numpy,
    "mask of pairs": masked,
    "weights of pairs": weighted,
    "nearest": nearest,
    "branch": lambda x: x**2 if x.sum() > 10 else x * x.roll(1),
    "item": lambda x: (x * x.max().item())[1:] * x[:-1],
    "derivative inside": gradient_inside,
    "transformation inside": torch.func.grad(lambda y: (y[1:] * y[:-1]).pow(2).sum()),
    "Hessian inside": lambda x: torch.func.hessian(lambda y: (y**3).sum())(x[:3]).sum(0),
    "written in place": written,
    "boolean index": lambda x: x[x > 0.8].sin(),
    "masked_select": lambda x: torch.masked_select(x, x > 0.8) ** 2,
    "masked_scatter": lambda x: x.masked_scatter(x > 0.8, x.flip(0) ** 2),
    "where": lambda x: torch.where(x > 0.8, x.roll(1), x.roll(-1) ** 2),
    "sort": lambda x: x.view(4, 6).sort(1, descending=True).values ** 2,
    "topk": lambda x: x.view(4, 6).topk(2, 1).values ** 2,
    "median": lambda x: (x.view(4, 6).median(1).values ** 2, x.view(4, 6).kthvalue(3).values),
    "quantile": lambda x: x.view(4, 6).quantile(0.4, dim=1) ** 2,
    "extrema": lambda x: (x.max() * x, x.view(4, 6).min(0).values, *x.view(4, 6).aminmax(dim=1)),
    "equal extrema": lambda x: torch.stack([x[0], x[0] * 1, x[1] - 10, x[2] - 10]).amax(0)[None],
    "limited": lambda x: torch.minimum(x, x.roll(1)) * torch.clamp(x, x.roll(2) - 0.1, x.roll(3)),
    "maxima over windows": lambda x: (
        functional.max_pool2d(x.view(1, 2, 3, 4), 2, stride=1) ** 2,
        functional.max_pool1d(x.view(1, 2, 12), 3, 2, 1),
        functional.adaptive_max_pool2d(x.view(1, 2, 3, 4), 2),
    ),
    "running": lambda x: (x.view(4, 6).cumsum(1) ** 2, x.view(4, 6).cumprod(0), x.logcumsumexp(0)),
    "running extrema": lambda x: (x.view(4, 6).cummax(1).values ** 2, x.cummin(0).values),
    "windows": lambda x: (
        functional.interpolate(x.view(1, 2, 3, 4), scale_factor=2.0, mode="bilinear") ** 2,
        functional.avg_pool2d(x.view(1, 2, 3, 4), 2, 1) ** 2,
        functional.pad(x.view(1, 2, 3, 4), (1, 1, 1, 1), mode="replicate") ** 2,
    ),
    "batches": lambda x: (
        torch.einsum("bij,bjk->bik", x.view(2, 3, 4), x.view(2, 4, 3)),
        torch.linalg.inv(x[:8].view(2, 2, 2) + 3 * torch.eye(2, dtype=DOUBLE)),
        torch.linalg.solve(x[:8].view(2, 2, 2).exp(), x[8:20].view(2, 2, 3)),
    ),
    "sparse matrix": lambda x: SPARSE @ x[:4].sin(),
    "weights of a convolution": lambda x: functional.conv2d(VOLUME[:, :, 0], x.view(3, 2, 2, 2)),
    **{
        f"{reduce}, {which} itself": scattered(reduce, which == "with")
        for reduce in ("sum", "prod", "mean", "amax", "amin")
        for which in ("with", "without")
    },
    **{
        f"sampled {mode} {padding}": sampled(mode, padding, align)
        for mode, align in (("bilinear", True), ("nearest", False), ("bicubic", False))
        for padding in ("zeros", "border", "reflection")
    },
}  # fmt: skip


def joined(found):
    parts = found if isinstance(found, tuple) else (found,)
    return torch.cat([part.reshape(-1) for part in parts])


@pytest.mark.parametrize("func", SELECTIONS.values(), ids=SELECTIONS.keys())
@pytest.mark.parametrize("operation", ["jacobian", "hessian"])
def test_the_pattern_is_that_of_torch_at_the_point(func, operation):
    x = point()
    subject = (lambda x: joined(func(x))) if operation == "jacobian" else (
        lambda x: (joined(func(x)).sin() * joined(func(x))).sum()
    )  # fmt: skip
    expected = getattr(torch.autograd.functional, operation)(subject, x).numpy() != 0
    pattern = detect_sparsity(subject, x, operation=operation)
    assert pattern.conservative == ()
    assert np.array_equal(pattern.to_scipy().toarray(), expected)


FULL = {
    "segments": lambda x: torch.segment_reduce(x.view(6, 4), "prod", lengths=torch.tensor([2, 4])),
    "indices": lambda x: x.view(6, 4).index_reduce(
        0, torch.tensor([1, 1]), x.view(6, 4)[3:5], "amax"
    ),
    "a transform": lambda x: torch.fft.rfft(x.view(4, 6)).abs(),
    "a triangle": lambda x: torch.linalg.solve_triangular(
        x[:8].view(2, 2, 2), x[8:20].view(2, 2, 3), upper=False
    ),
    "a factor": lambda x: torch.linalg.cholesky(x[:8].view(2, 2, 2) @ x[:8].view(2, 2, 2).mT),
    "a transposed convolution": lambda x: functional.conv_transpose2d(
        VOLUME[:, :, 0], x.view(2, 3, 2, 2)
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*in beta")
@pytest.mark.parametrize("func", FULL.values(), ids=FULL.keys())
def test_blocks_and_lines_are_full_and_apart_from_others(func):
    x = point()
    expected = torch.autograd.functional.jacobian(lambda x: joined(func(x)), x).numpy() != 0
    pattern = detect_sparsity(func, x)
    found = pattern.to_scipy().toarray()
    assert pattern.conservative == ()
    assert not (expected & ~found).any()
    assert pattern.entries < 0.7 * found.size


def test_what_is_held_of_the_point_is_listed_with_its_line():
    def function(x):
        total = sum(x[0].item() for _ in range(3))
        return torch.where(x > 0.8, x * total, x.flip(0))

    found = detect_sparsity(function, point()).frozen
    line = function.__code__.co_firstlineno
    assert any(each.startswith(f"item at {__file__}:{line + 1}: ") for each in found)
    assert any("3 times" in each for each in found)
    assert any(each.startswith(f"gt at {__file__}:{line + 2}: ") for each in found)
    assert detect_sparsity(torch.sin, point()).frozen == ()
    # Forward derivatives inside compare shapes, which are no values of the point.
    inside = lambda x: torch.func.jvp(lambda y: y**3 * y.roll(1), (x,), (x,))[1]  # noqa: E731
    assert detect_sparsity(inside, point()).frozen == ()


def test_what_is_written_into_a_given_tensor_is_seen():
    def function(x):
        squares = torch.empty_like(x)
        with torch.no_grad():
            torch.mul(x, x, out=squares)
        return squares.roll(1) * x

    x = point()
    by_both = torch.eye(len(x)) + torch.eye(len(x)).roll(-1, 1)
    assert (detect_sparsity(function, x).to_scipy().toarray() == by_both.bool().numpy()).all()


def test_a_pattern_of_another_point_is_refused_and_one_of_all_points_is_not(tmp_path):
    def upwind(u):
        return torch.where(u > 0.8, u - u.roll(1), u.roll(-1) - u) * u.clamp(min=0.5)

    here, there = point(), point().flip(0)
    detect_sparsity(upwind, here).save(tmp_path / "pattern.npz")
    held = colour(SparsityPattern.load(tmp_path / "pattern.npz"))
    assert held.pattern.frozen
    sparse_jacobian(upwind, here, sparsity=held)
    with pytest.raises(PatternError, match="values of another point"):
        sparse_jacobian(upwind, there, sparsity=held)
    with pytest.raises(PatternError, match="values of another point"):
        SparseEvaluator(upwind, here, held)(there)
    every = colour(detect_sparsity(upwind, here, local=False))
    assert every.pattern.frozen == ()
    expected = torch.autograd.functional.jacobian(upwind, there)
    torch.testing.assert_close(sparse_jacobian(upwind, there, sparsity=every).to_dense(), expected)


@torch.library.custom_op("sparsity_tests::reversed", mutates_args=())
def reverse(x: torch.Tensor) -> torch.Tensor:
    return x.flip(0)


def test_an_operator_without_a_rule_is_named_with_its_line():
    def function(x):
        return reverse(x[:12])

    place = f"reversed ({__file__}:{function.__code__.co_firstlineno + 1})"
    pattern = detect_sparsity(function, point())
    assert pattern.conservative == (place,)
    assert pattern.entries == 12 * 12
    with pytest.raises(DetectionError, match="more than 100 entries") as error:
        detect_sparsity(lambda x: function(x) * 2, point(), most_entries=100)
    assert place in str(error.value)
