import numpy as np
import pytest

from outputs._scanning.relative_errors import relative_errors


def errors(matrix, probe, expected, floor=0.0):
    with np.errstate(all="ignore"):
        products, squares = matrix @ probe, (np.abs(matrix) ** 2).sum(1)
    return relative_errors(products, np.asarray(expected), squares, probe, floor)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("floor", [0.0, 2.5])
def test_an_error_is_relative_to_the_sum_of_four_terms(entries, dtype, floor):
    matrix, probe = entries((6, 9), dtype), entries((9,), dtype)
    expected = matrix @ probe
    expected[2] += 0.5
    found = errors(matrix, probe, expected, floor)
    typical = np.sqrt(np.mean(np.abs(expected) ** 2))
    norms = np.linalg.norm(matrix[2]) * np.linalg.norm(probe)
    assert found[2] == pytest.approx(0.5 / (norms + abs(expected[2]) + typical + floor))
    assert np.delete(found, 2).max() < 1e-15


def test_lines_that_cannot_be_checked_are_nan_and_lines_that_must_not_be_infinite_are_inf():
    matrix = np.array([[1.0, 2.0], [np.nan, 0.0], [np.nan, 0.0], [1e200, 0.0], [0.0, 0.0]])
    found = errors(matrix, np.ones(2), [3.0, 1.0, np.nan, 1e200, 0.0])
    np.testing.assert_array_equal(found, [0.0, np.inf, np.nan, np.nan, 0.0])
    assert np.isnan(errors(matrix[:1], np.ones(2), [np.inf])).all()


def test_a_line_of_zeros_with_another_product_is_wrong():
    found = errors(np.zeros((1, 3)), np.ones(3), [1e-9])
    assert found[0] == pytest.approx(0.5)
