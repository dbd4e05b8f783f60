import numpy as np
import pytest

from outputs import Axis


@pytest.mark.parametrize(
    ("axis", "dimension", "lines", "across"), [("rows", 0, 5, 7), ("columns", 1, 7, 5)]
)
def test_an_axis_indexes_a_matrix(axis, dimension, lines, across):
    matrix, axis = np.arange(35).reshape(5, 7), Axis(axis)
    assert axis.dimension == dimension
    assert (axis.lines(matrix.shape), axis.across(matrix.shape)) == (lines, across)
    assert axis.shape(lines, across) == matrix.shape
    part = np.take(matrix, range(1, 3), axis=dimension)
    np.testing.assert_array_equal(matrix[axis.region(1, 3)], part)
    region = axis.bounded_region(matrix.shape, 1, 3)
    assert tuple(each.stop - each.start for each in region) == part.shape
    np.testing.assert_array_equal(matrix[region], part)
