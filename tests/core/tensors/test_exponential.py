"""Derivatives of the exponential of a matrix equal those by a matrix of twice the size."""

import pytest
import torch

from autodiff_core._programs.recording import UncapturableError, record
from autodiff_core._programs.rules.lowering import lower
from autodiff_core._tensors.exponential import DerivativeOfExponential
from tests.core.support.cases import draw


@pytest.mark.parametrize("norm", [0.0, 1e-9, 0.5, 0.8, 3.0, 40.0])
@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.float32])
def test_derivatives_of_the_exponential(norm, batch, dtype):
    matrix, directions = draw(*batch, 6, 6), draw(5, *batch, 6, 6, seed=1)
    if dtype.is_complex:
        matrix, directions = torch.complex(matrix, matrix.mT), torch.complex(directions, directions)
    scale = norm / torch.linalg.matrix_norm(matrix, 1).max()
    matrix = (matrix * scale).to(dtype)
    given = DerivativeOfExponential(matrix)(directions.to(dtype))
    exact = torch.complex128 if dtype.is_complex else torch.float64
    whole, directions = matrix.to(exact).expand(5, *matrix.shape), directions.to(dtype).to(exact)
    upper = torch.cat([whole, directions], -1)
    lower_half = torch.cat([torch.zeros_like(whole), whole], -1)
    expected = torch.linalg.matrix_exp(torch.cat([upper, lower_half], -2))[..., :6, 6:]
    error = (given - expected).norm() / expected.norm()
    assert error < (2e-5 if dtype == torch.float32 else 1e-12)


def test_directions_of_several_matrices_are_not_mixed():
    matrices, directions = draw(3, 5, 5), draw(4, 3, 5, 5, seed=1)
    together = DerivativeOfExponential(matrices)(directions)
    for place in range(3):
        alone = DerivativeOfExponential(matrices[place])(directions[:, place])
        torch.testing.assert_close(together[:, place], alone, rtol=1e-12, atol=1e-12)


def test_constants_that_are_joined_for_something_else_are_refused():
    matrix, vector = draw(4, 4), draw(4, 4, seed=1)

    def joined(v):
        return (torch.cat([matrix, v[0]], -1),)

    def whole_exponential(v):
        lower_half = torch.cat([torch.zeros_like(matrix), matrix], -1)
        return (torch.linalg.matrix_exp(torch.cat([*joined(v), lower_half], -2)),)

    def other_block(v):
        return (whole_exponential(v)[0][:4, :4] * 2,)

    def another_matrix(v):
        lower_half = torch.cat([torch.zeros_like(matrix), 2 * matrix], -1)
        return (torch.linalg.matrix_exp(torch.cat([*joined(v), lower_half], -2))[:4, 4:],)

    for linear_map in (joined, whole_exponential, other_block, another_matrix):
        with pytest.raises(UncapturableError, match="not linear"):
            lower(record(linear_map, (vector,)))
