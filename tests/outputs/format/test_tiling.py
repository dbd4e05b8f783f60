import numpy as np
import pytest

from outputs import Axis
from outputs._format.tiling import tile_shape


@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize(
    "shape", [(1, 1), (100, 100), (1000, 10**6), (10**6, 1000), (16385, 4096), (3, 10**8)]
)
@pytest.mark.parametrize("itemsize", [4, 16])
def test_tiles_are_large_and_waste_little(shape, itemsize, axis):
    tile = tile_shape(shape, itemsize, axis)
    assert all(1 <= extent <= length for extent, length in zip(tile, shape, strict=True))
    size = tile[0] * tile[1] * itemsize
    whole = shape[0] * shape[1] * itemsize
    assert min(2**20, whole) * 0.9 <= size <= 4 * 2**20
    stored = np.prod([-(-n // t) * t for n, t in zip(shape, tile, strict=True)]) * itemsize
    assert stored <= 1.1 * whole + 2**21


@pytest.mark.parametrize("axis", list(Axis))
@pytest.mark.parametrize("block_lines", [1, 7, 16, 64, 200, 251, 1000, 4096])
@pytest.mark.parametrize("shape", [(1, 1), (100, 100), (5000, 10**6), (4097, 4096), (10**5, 10**7)])
def test_tiles_fit_to_blocks(shape, block_lines, axis):
    lines, across = shape
    tile = tile_shape(shape if axis is Axis.ROWS else shape[::-1], 4, axis, block_lines)
    high, wide = tile if axis is Axis.ROWS else tile[::-1]
    assert 1 <= high <= lines
    assert 1 <= wide <= across
    assert 4 * high * wide <= 4 * 2**20
    assert -(-lines // high) * -(-across // wide) <= max(2**17, 4 * lines * across // 2**20)
    block = min(block_lines, lines)
    assert high % block == 0 or block % high == 0 or high == lines or block == 251
