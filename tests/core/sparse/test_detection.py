"""Detected patterns agree with dense derivatives."""

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

import autodiff_core
from autodiff_core.sparse import SparsityPattern, detect_sparsity

INDEX = torch.tensor([0, 2, 2, 5])
EXACT = {
    "elementwise": torch.sin,
    "slices": lambda x: (x[1:] - x[:-1]).tanh(),
    "roll": lambda x: x * x.roll(1),
    "gather": lambda x: x[INDEX] ** 2,
    "scatter": lambda x: torch.zeros(6, dtype=x.dtype).index_add(0, INDEX, x[:4].sin()),
    "matrix": lambda x: x.view(2, 3) @ torch.ones(3, 2, dtype=x.dtype),
    "zeros in a matrix": lambda x: torch.eye(6, dtype=x.dtype) @ x,
    "running sum": lambda x: x.cumsum(0),
    "convolution": lambda x: torch.nn.functional.conv1d(
        x.view(1, 1, 6), torch.ones(1, 1, 3, dtype=x.dtype), padding=1
    ),
    "softmax": lambda x: x.view(2, 3).softmax(1),
    "sum": lambda x: x.view(2, 3).sum(1),
    "floor": lambda x: x.floor() + x[0],
    "times zero": lambda x: x * 0 + x**1,
}


@pytest.mark.parametrize("func", EXACT.values(), ids=EXACT.keys())
def test_a_jacobians_pattern_is_exact(func):
    x = torch.rand(6, dtype=torch.float64) + 0.3
    dense = torch.autograd.functional.jacobian(func, x).reshape(-1, 6)
    pattern = detect_sparsity(func, x)
    assert np.array_equal(pattern.to_scipy().toarray(), dense.numpy() != 0)
    assert pattern.conservative == ()


def test_a_hessians_pattern_is_exact():
    def chain(x):
        return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()

    x = torch.rand(9, dtype=torch.float64) + 0.3
    dense = torch.autograd.functional.hessian(chain, x)
    pattern = detect_sparsity(chain, x, operation="hessian")
    assert np.array_equal(pattern.to_scipy().toarray(), np.asarray(dense) != 0)
    assert pattern.is_symmetric()


def test_a_pattern_is_saved_and_loaded(tmp_path):
    pattern = detect_sparsity(lambda x: x[1:] * x[:-1], torch.rand(5))
    pattern.save(tmp_path / "pattern.npz")
    loaded = SparsityPattern.load(tmp_path / "pattern.npz")
    assert loaded.shape == pattern.shape
    assert np.array_equal(loaded.indices, pattern.indices)
    assert np.array_equal(loaded.indptr, pattern.indptr)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return 2 * x.flip(0)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient.flip(0)


def weights(*shape):
    return torch.linspace(-1, 1, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


functional = torch.nn.functional
COVERED = {
    "convolution in 2 dimensions": lambda x: functional.conv2d(
        x.view(1, 2, 3, 4), weights(3, 2, 2, 2), weights(3), stride=(1, 2), padding=1
    ),
    "grouped convolution": lambda x: functional.conv1d(x.view(1, 4, 6), weights(4, 2, 3), groups=2),
    "dilated convolution": lambda x: functional.conv1d(
        x.view(1, 2, 12), weights(3, 2, 3), dilation=2
    ),
    "transposed convolution": lambda x: functional.conv_transpose2d(
        x.view(1, 2, 3, 4), weights(2, 3, 2, 3), stride=2, padding=1
    ),
    "maximum over windows": lambda x: functional.max_pool2d(x.view(1, 2, 3, 4), 2, stride=1),
    "mean over windows": lambda x: functional.avg_pool2d(x.view(1, 2, 3, 4), 2, stride=1),
    "adaptive mean": lambda x: functional.adaptive_avg_pool1d(x.view(1, 2, 12), 5),
    "products of matrices": lambda x: x.view(2, 3, 4) @ (x.view(2, 4, 3) * 2).sin(),
    "a sum over indices": lambda x: torch.einsum("bij,bkj->bik", x.view(2, 3, 4), x.view(2, 3, 4)),
    "layer normalisation": lambda x: functional.layer_norm(x.view(4, 6), (6,)),
    "group normalisation": lambda x: functional.group_norm(x.view(1, 4, 6), 2),
    "batch normalisation": lambda x: functional.batch_norm(x.view(4, 6), None, None, training=True),
    "sorted": lambda x: x.view(4, 6).sort(1).values,
    "largest": lambda x: x.view(4, 6).topk(2, 1).values,
    "maximum and its place": lambda x: x.view(4, 6).max(1).values,
    "running product": lambda x: x.view(4, 6).cumprod(1),
    "running maximum": lambda x: x.view(4, 6).cummax(1).values,
    "product": lambda x: x.view(4, 6).prod(1),
    "logarithm of a sum": lambda x: x.view(4, 6).logsumexp(1),
    "norm": lambda x: torch.linalg.vector_norm(x.view(4, 6), dim=1),
    "variance": lambda x: x.view(4, 6).var(1),
    "distances": lambda x: torch.cdist(x.view(8, 3)[:4], x.view(8, 3)[4:]),
    "outer": lambda x: torch.outer(x[:3], x[3:]),
    "choice": lambda x: torch.where(x > 0.5, x.roll(1), x.roll(-1) ** 2),
    "clamped": lambda x: x.clamp(0.4, 0.9),
    "padded": lambda x: functional.pad(x.view(4, 6), (1, 2), mode="circular"),
    "reflected": lambda x: functional.pad(x.view(1, 4, 6), (2, 2), mode="reflect"),
    "joined": lambda x: torch.cat([x[3:], x[:5].cos()]).flip(0),
    "stacked": lambda x: torch.stack([x, x.roll(2)], 1).unfold(0, 3, 2),
    "assigned in place": lambda x: torch.zeros_like(x).index_put((INDEX,), x[:4], accumulate=True),
    "assigned slice": lambda x: (x.clone().index_fill(0, INDEX, 0.0), x[::2].exp()),
    "triangles": lambda x: torch.tril(x.view(4, 6)) + torch.triu(x.view(4, 6), 2),
    "interpolated": lambda x: functional.interpolate(x.view(1, 2, 12), scale_factor=2.0),
    "linear": lambda x: functional.linear(x.view(4, 6), weights(3, 6), weights(3)),
    "attention": lambda x: functional.softmax(x.view(4, 6) @ x.view(4, 6).T, -1) @ x.view(4, 6),
    "kinks": lambda x: functional.relu(x - 0.5) + functional.gelu(x) + functional.elu(x),
    "a custom function": Doubled.apply,
    "a dictionary": lambda x: {"a": x[:3].sin(), "b": (x[3:] * x[0],)},
    "transform": lambda x: torch.fft.rfft(x.view(4, 6)).abs(),
}


@pytest.mark.parametrize("func", COVERED.values(), ids=COVERED.keys())
def test_a_pattern_misses_no_entry(func):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(24, generator=generator, dtype=torch.float64) + 0.3
    dense = matrix(autodiff_core.blocks(func, x, operation="jacobian"))
    assert_covers(detect_sparsity(func, x), dense)


@pytest.mark.parametrize(
    "name", sorted(set(COVERED) - {"transform", "a custom function", "distances"})
)
def test_a_hessians_pattern_misses_no_entry(name):
    def energy(x):
        parts = tree_leaves(COVERED[name](x))
        return sum((part.sin() * part).sum() for part in parts)

    x = torch.rand(24, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3
    dense = matrix(autodiff_core.blocks(energy, x, operation="hessian"))
    pattern = detect_sparsity(energy, x, operation="hessian")
    assert_covers(pattern, dense)


def test_several_inputs_and_outputs_are_concatenated():
    def f(a, b):
        return a[:2] * b[0], b.sin()

    point = (torch.rand(2, 3, dtype=torch.float64), torch.rand(4, dtype=torch.float64))
    dense = matrix(autodiff_core.blocks(f, point, operation="jacobian"))
    pattern = detect_sparsity(f, point)
    assert pattern.shape == dense.shape
    assert np.array_equal(pattern.to_scipy().toarray(), dense != 0)


def matrix(stream):
    return stream.matrix().numpy()


def assert_covers(pattern, dense):
    assert pattern.shape == dense.shape
    missing = (dense != 0) & ~pattern.to_scipy().toarray().astype(bool)
    assert not missing.any()


def test_a_custom_function_is_assumed_to_read_everything_and_is_named_with_its_line():
    (found,) = detect_sparsity(Doubled.apply, torch.rand(4)).conservative
    line = Doubled.forward.__code__.co_firstlineno + 2
    assert found == f"custom autograd.Function Doubled ({__file__}:{line})"
