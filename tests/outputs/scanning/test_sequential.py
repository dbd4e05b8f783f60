import numpy as np
import pytest

from outputs import Axis, ResultWriter, open_result
from outputs._scanning.sequential import Order, bands, piece_shape, pieces

ORDERS: tuple[Order, Order] = ("C", "F")
TILED = {"axis": "columns", "tile": (7, 5)}
CASES = [
    ({"axis": "rows"}, (33, 20)),
    ({"axis": "rows"}, (1, 1)),
    ({"axis": "columns"}, (12, 41)),
    (TILED, (33, 20)),
    (TILED, (1, 1)),
]


@pytest.fixture(params=CASES)
def result(describe, entries, tmp_path, request):
    layout, shape = request.param
    matrix = entries(shape, "float64")
    with ResultWriter.create(tmp_path / "r.h5", describe(shape, **layout)) as writer:
        writer.write(0, Axis(layout["axis"]).lines(shape), matrix)
        writer.finish({})
    with open_result(tmp_path / "r.h5") as opened:
        yield opened, matrix


@pytest.mark.parametrize("limit", [1, 600, 10**6])
def test_pieces_cover_every_entry_once(result, limit):
    opened, matrix = result
    dataset = opened.dataset()
    found, times = np.zeros_like(matrix), np.zeros(matrix.shape, int)
    shape = piece_shape(dataset, limit)
    for region, values in pieces(dataset, shape):
        found[region], times[region] = values, times[region] + 1
        tile = dataset.chunks or (1, 1)
        assert values.nbytes <= max(limit, tile[0] * tile[1] * matrix.itemsize)
        assert all(part.start % extent == 0 for part, extent in zip(region, tile, strict=True))
    assert (times == 1).all()
    np.testing.assert_array_equal(found, matrix)
    for axis, order in enumerate(ORDERS):
        np.testing.assert_array_equal(np.concatenate([*bands(dataset, order, limit)], axis), matrix)
