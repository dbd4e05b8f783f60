"""Detected patterns against dense derivatives."""

import numpy as np
import pytest
import torch

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


def test_an_operator_without_a_rule_reads_all_and_is_named():
    pattern = detect_sparsity(lambda x: torch.linalg.inv(x.view(2, 2)), torch.rand(4))
    assert pattern.conservative
    assert pattern.entries == 16


def test_a_pattern_is_saved_and_loaded(tmp_path):
    pattern = detect_sparsity(lambda x: x[1:] * x[:-1], torch.rand(5))
    pattern.save(tmp_path / "pattern.npz")
    loaded = SparsityPattern.load(tmp_path / "pattern.npz")
    assert loaded.shape == pattern.shape
    assert np.array_equal(loaded.indices, pattern.indices)
    assert np.array_equal(loaded.indptr, pattern.indptr)
