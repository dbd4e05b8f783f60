"""The stream of blocks."""

import threading
import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autodiff_core import AxisLayout, FallbackWarning, blocks
from tests.core.support import cases
from tests.core.support.cases import MATRICES, STRATEGIES, assert_same, draw


def _vector(x, y):
    return x.sin()[:, None] * y, x.prod() * y.sum(), x[:2] * 2


def _scalar(x, y):
    return (x**3).sum() * (y**2).sum()


FUNCTIONS = {"jacobian": _vector, "hessian": _scalar}
ROWS = {"jacobian": (12, 1, 2), "hessian": (3, 4)}


def _point():
    return draw(3), draw(4)


def _stream(operation, strategy, **options):
    return blocks(FUNCTIONS[operation], _point(), operation=operation, strategy=strategy, **options)


def _truth(operation):
    tree = cases.torch_call(operation, FUNCTIONS[operation], _point())
    return cases.matrix_of(tree, ROWS[operation], (3, 4))


@pytest.mark.parametrize("chunk_size", [1, 2, 4, 100])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("operation", MATRICES)
def test_blocks_come_in_order_and_cover_the_matrix(operation, strategy, chunk_size):
    stream = _stream(operation, strategy, chunk_size=chunk_size)
    truth = _truth(operation)
    axis = "rows" if strategy in cases.REVERSE else "columns"
    assert (stream.axis, stream.shape) == (axis, tuple(truth.shape))
    assert stream.rows.size, stream.columns.size == truth.shape
    position = 0
    for block in stream:
        assert (block.axis, block.start) == (axis, position)
        assert 0 < block.stop - block.start <= chunk_size
        position = block.stop
        here = slice(block.start, block.stop)
        assert_same(block.values, truth[here] if axis == "rows" else truth[:, here])
        assert not block.values.requires_grad
    assert position == stream.shape[0 if axis == "rows" else 1]
    assert_same(stream.matrix(), truth)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("operation", MATRICES)
@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (range(2, 6), None),
        (None, range(2, 6)),
        (range(1, 7), range(3, 4)),
        (range(1), range(6, 7)),
        (range(3, 3), None),
        (range(2), range(5, 5)),
    ],
)
def test_a_part_of_the_matrix(operation, strategy, rows, columns):
    stream = _stream(operation, strategy, rows=rows, columns=columns, chunk_size=2)
    truth = _truth(operation)
    if rows is not None:
        truth = truth[rows.start : rows.stop]
    if columns is not None:
        truth = truth[:, columns.start : columns.stop]
    assert stream.shape == tuple(truth.shape)
    assert_same(stream.matrix(), truth)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("operation", MATRICES)
def test_only_missing_ranges_are_computed(operation, strategy):
    stream = _stream(operation, strategy, chunk_size=2)
    missing = [range(1, 2), range(3, 6)]
    given = [(block.start, block.stop) for block in stream.blocks(missing)]
    assert given == [(1, 2), (3, 5), (5, 6)]
    truth = _truth(operation)
    for block in stream.blocks(missing):
        here = slice(block.start, block.stop)
        assert_same(block.values, truth[here] if stream.axis == "rows" else truth[:, here])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_blocks_in_any_order_and_twice(strategy):
    stream = _stream("jacobian", strategy)
    truth = _truth("jacobian")
    for start, stop in [(4, 7), (0, 3), (4, 7), (2, 5)]:
        here = slice(start, stop)
        values = stream.block(start, stop).values
        assert_same(values, truth[here] if stream.axis == "rows" else truth[:, here])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_dtype_of_the_matrix_can_represent_all_tensors(strategy):
    def func(x, y):
        return x.double() * y.double().sum(), y.sum().to(torch.bfloat16)

    point = draw(3, dtype=torch.float32), draw(2, dtype=torch.float16)
    stream = blocks(func, point, operation="jacobian", strategy=strategy, chunk_size=2)
    assert stream.dtype == torch.float64
    assert {block.values.dtype for block in stream} == {torch.float64}
    assert stream.columns.dtypes == (torch.float32, torch.float16)
    assert stream.rows.dtypes == (torch.float64, torch.bfloat16)


def test_layout():
    layout = AxisLayout(((2, 2), (), (0,), (3,)), (torch.float64,) * 4)
    assert layout.offsets == (0, 4, 5, 5, 8)
    assert layout.size == 8
    assert layout.overlaps(3, 6) == [(0, 3, 4), (1, 0, 1), (3, 0, 1)]
    assert layout.overlaps(5, 5) == []


@pytest.mark.parametrize("operation", MATRICES)
@pytest.mark.parametrize("strategy", cases.REVERSE)
def test_reverse_evaluates_the_function_exactly_once(operation, strategy):
    calls = []

    def func(x, y):
        calls.append(1)
        return FUNCTIONS[operation](x, y)

    blocks(func, _point(), operation=operation, strategy=strategy, chunk_size=2).matrix()
    assert len(calls) == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_creating_the_stream_evaluates_seldom_and_keeps_the_value(strategy):
    calls = []

    def func(x, y):
        calls.append(1)
        return _vector(x, y)

    stream = blocks(func, _point(), operation="jacobian", strategy=strategy)
    # Forward mode compares a product with reverse mode.
    assert len(calls) == (1 if strategy in cases.REVERSE else 2)
    assert_same(stream.value, _vector(*_point()))
    assert not any(part.requires_grad for part in stream.value)


class Largest(TorchDispatchMode):
    """Record the size of the largest tensor that any operator creates."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.untyped_storage().nbytes() // 8)
        return result


@pytest.mark.parametrize("chunk_size", [1, 4])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("operation", MATRICES)
def test_neither_basis_nor_matrix_is_ever_whole_in_memory(operation, strategy, chunk_size):
    size = 60

    def func(x):
        y = x.sin() * x.roll(1)
        return y if operation == "jacobian" else (y**2).sum()

    with Largest() as watched:
        stream = blocks(
            func, draw(size), operation=operation, strategy=strategy, chunk_size=chunk_size
        )
        for block in stream:
            _ = block.values
    # A vmapped roll or stack may store a chunk twice.
    assert watched.elements <= 2 * (chunk_size + 1) * size


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_assembly_stores_the_matrix_once(strategy):
    size = 80
    with Largest() as watched:
        cases.call("jacobian", torch.sin, draw(size), strategy, chunk_size=4)
    assert watched.elements == size * size


def test_threads_do_not_share_the_state_of_warnings():
    def func(x):
        return torch.cdist(x.reshape(3, 2), torch.ones(4, 2, dtype=x.dtype))

    failures = []

    def work():
        try:
            for _ in range(5):
                stream = blocks(
                    func, draw(6), operation="jacobian", strategy="vectorize", engine="plain"
                )
                (block,) = list(stream)
                assert len(block.fallbacks) == 1
        except Exception as error:
            failures.append(error)

    filters, show = list(warnings.filters), warnings.showwarning
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert warnings.filters == filters
    assert warnings.showwarning is show


def test_a_fallback_can_be_made_an_error():
    def func(x):
        return torch.cdist(x.reshape(3, 2), torch.ones(4, 2, dtype=x.dtype))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(FallbackWarning, match="one vector at a time"):
            cases.call("jacobian", func, draw(6), "vectorize")


def test_warnings_of_the_function_reach_the_user():
    def func(x):
        warnings.warn("of the user", UserWarning, stacklevel=1)
        return x.sin()

    with pytest.warns(UserWarning, match="of the user"):
        cases.call("jacobian", func, draw(3), "forward-mode")


def test_columns_of_a_hessian_as_rows():
    stream = _stream("hessian", "forward-mode", chunk_size=3)
    by_rows = stream.rows_by_symmetry()
    assert (stream.axis, by_rows.axis) == ("columns", "rows")
    truth = _truth("hessian")
    for block in by_rows:
        assert block.axis == "rows"
        assert_same(block.values, truth[block.start : block.stop])
    assert_same(by_rows.matrix(), truth)


@pytest.mark.parametrize(
    ("operation", "strategy", "options"),
    [
        ("jacobian", "forward-mode", {}),
        ("hessian", "vectorize", {}),
        ("hessian", "forward-mode", {"rows": range(2)}),
    ],
)
def test_only_columns_of_a_whole_hessian_are_rows(operation, strategy, options):
    with pytest.raises(ValueError, match="whole Hessians"):
        _stream(operation, strategy, **options).rows_by_symmetry()
