"""The captured engine gives the numbers of the plain one."""

import warnings
from functools import partial

import pytest
import torch

from autodiff_core import blocks
from autodiff_core._engines import captured
from autodiff_core._engines.agreement import require_agreement
from autodiff_core._programs.program import Program
from autodiff_core._programs.recording import record
from autodiff_core._programs.rules.lowering import lower
from autodiff_core._programs.stacks import dense_stack
from tests.core.support import cases
from tests.core.support.cases import MATRICES, PRODUCTS, assert_same, draw
from tests.core.support.operators import BATCHED, REFUSED
from tests.core.support.outcomes import Refused
from tests.core.support.resisting import FUNCTIONS, sum_of_squares

MATRIX_CASES = [(op, name) for op in MATRICES for name in cases.table(op) if name != "not a number"]

PRODUCT_CASES = [
    (op, name) for op in PRODUCTS for name in cases.table(op) if name != "not a number"
]


def _leaves(point):
    return point if isinstance(point, tuple) else (point,)


def _sizes(tensors):
    return [tensor.numel() for tensor in tensors]


def _truth(operation, func, point):
    expected = cases.torch_call(operation, func, point)
    columns = _sizes(_leaves(point))
    if operation == "hessian":
        return cases.matrix_of(expected, columns, columns)
    return cases.matrix_of(expected, _sizes(cases.leaves(func(*_leaves(point)))), columns)


@pytest.mark.parametrize("chunk_size", [1, 3])
@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize(("operation", "name"), MATRIX_CASES)
def test_a_captured_matrix_equals_that_of_torch(operation, name, strategy, chunk_size):
    case = cases.table(operation)[name]
    point = case.point()
    stream = blocks(
        case.func,
        point,
        operation=operation,
        strategy=strategy,
        chunk_size=chunk_size,
        engine="captured",
    )
    given = list(stream)
    truth = _truth(operation, case.func, point)
    assert_same(stream.matrix(), truth.to(stream.dtype), 1e-5 if name == "float32" else 1e-10)
    is_captured = (operation, name, strategy) not in REFUSED
    assert stream.engine == ("captured" if is_captured else "plain")
    assert (stream.engine_refusal is None) == is_captured
    # Constant functions have a note of their own.
    fallbacks = [each for block in given for each in block.fallbacks if each.instead != "zeros"]
    assert len(fallbacks) == (0 if is_captured else 1)


@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize(("operation", "name"), PRODUCT_CASES)
def test_a_captured_product_equals_the_plain_one(operation, name, strategy):
    if strategy not in cases.STRATEGIES_OF[operation]:
        pytest.skip("the operation has no such strategy")
    case = cases.table(operation)[name]
    point = case.point()
    space = case.func(*_leaves(point)) if operation == "vjp" else point
    drawn = tuple(
        draw(5, *part.shape, dtype=part.dtype, seed=index)
        for index, part in enumerate(cases.leaves(space))
    )
    vectors = drawn if isinstance(space, tuple) else drawn[0]

    def stream(engine):
        return blocks(
            case.func,
            point,
            operation=operation,
            strategy=strategy,
            vectors=vectors,
            chunk_size=2,
            engine=engine,
        )

    by_program = stream("captured")
    given = by_program.matrix()
    assert_same(given, stream("plain").matrix(), 1e-5 if name == "float32" else 1e-10)
    assert (by_program.engine_refusal is None) == ((operation, name, strategy) not in REFUSED)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("operation", MATRICES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_resisting_function_gives_the_numbers_of_the_plain_engine(name, operation, strategy):
    row = FUNCTIONS[name]
    if isinstance(getattr(row, operation).get(strategy), Refused):
        pytest.skip("no engine can")
    func = row.make() if operation == "jacobian" else sum_of_squares(row.make())
    matrices = []
    for choice in ("auto", "plain"):
        torch.manual_seed(3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stream = blocks(
                func, row.point(), operation=operation, strategy=strategy, engine=choice
            )
            matrices.append(stream.matrix())
    given, expected = matrices
    assert_same(given, expected, 1e-8)


class WrongBatch(torch.autograd.Function):
    """A backward that reads its argument's numbers without a torch operator."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients):
        return torch.from_numpy(gradients[0].numpy() * 2.0)


def test_a_capture_that_disagrees_is_reported_and_not_used():
    stream = blocks(
        WrongBatch.apply, draw(4), operation="jacobian", strategy="vectorize", engine="captured"
    )
    (block,) = list(stream)
    assert_same(block.values, 2 * torch.eye(4, dtype=torch.float64))
    assert stream.engine == "plain"
    assert [record.instead for record in block.fallbacks] == [
        "the plain engine",
        "one vector at a time",
    ] or [record.instead for record in block.fallbacks][-1:] == ["the plain engine"]
    assert stream.engine_refusal is not None


def test_rounding_that_the_function_amplifies_is_no_disagreement():
    source = torch.linspace(0.5, 1.5, 199)

    def diffusion(x):
        k = torch.exp(x)
        matrix = torch.diag(k[:-1] + k[1:]) - torch.diag(k[1:-1], 1) - torch.diag(k[1:-1], -1)
        return torch.linalg.solve(matrix, source.to(x.dtype))

    x = 0.1 * draw(200)
    stream = blocks(diffusion, x.float(), operation="jacobian", strategy="vectorize")
    given, expected = stream.matrix(), torch.autograd.functional.jacobian(diffusion, x)
    assert stream.engine == "captured", stream.engine_refusal
    assert (given - expected).norm() < 2e-3 * expected.norm()  # 1e4 times float32's rounding


def test_an_error_larger_than_rounding_is_a_disagreement():
    plain = (torch.ones(3),)
    again = [plain[0] * (1 + 1e-3)]
    for error, agrees in ((2e-3, True), (8e-3, False)):
        given = (plain[0] * (1 + error),)
        check = partial(require_agreement, plain, given, [plain[0][None]], "captured")
        if agrees:
            check(lambda: torch.float32, lambda: again)
        else:
            with pytest.raises(RuntimeError, match="disagreed"):
                check(lambda: torch.float32, lambda: again)
    # A map that differs from itself explains no difference of leading digits.
    check = partial(require_agreement, plain, (plain[0] * 1.1,), [plain[0][None]], "captured")
    with pytest.raises(RuntimeError, match="disagreed"):
        check(lambda: torch.float32, lambda: [-plain[0]])


def test_auto_falls_back_without_reporting_it():
    stream = blocks(WrongBatch.apply, draw(4), operation="jacobian", strategy="vectorize")
    (block,) = list(stream)
    assert_same(block.values, 2 * torch.eye(4, dtype=torch.float64))
    assert all(record.instead != "the plain engine" for record in block.fallbacks)
    assert stream.engine == "plain"


@pytest.mark.parametrize("strategy", BATCHED)
def test_the_function_is_not_evaluated_again_for_each_chunk(strategy):
    calls = []

    def func(x):
        calls.append(1)
        return x.sin() * x.roll(1)

    stream = blocks(func, draw(40), operation="jacobian", strategy=strategy, chunk_size=2)
    stream.block(0, 2)
    before = len(calls)
    assert len(list(stream)) == 20
    assert len(calls) == before


@pytest.mark.parametrize("strategy", BATCHED)
def test_unrelated_outputs_are_zero_and_blocks_share_no_memory(strategy):
    def func(x, y):
        return x.sin(), y.cos()

    point = draw(30), draw(30, seed=1)
    stream = blocks(func, point, operation="jacobian", strategy=strategy, chunk_size=30)
    first, second = (block.values.clone() for block in stream)
    again = [block.values for block in stream]
    assert_same(again[0], first)
    assert_same(again[1], second)
    assert not first[..., 30:].any() if strategy == "vectorize" else not first[30:].any()


@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize(
    "scale", [torch.tensor(0.7), torch.linspace(0.5, 1, 4), torch.linspace(0.5, 1, 5)]
)
def test_a_few_parameters_beside_many_get_no_separate_program(scale, strategy, monkeypatch):
    recorded = []
    record = captured.record

    def watched(linear_map, vector):
        recorded.append(vector[0].shape)
        return record(linear_map, vector)

    monkeypatch.setattr(captured, "record", watched)
    inputs = (draw(6, 4), scale.double())

    def func(x, scale):
        return (x.sin() * scale.sum().exp()).square().sum() + scale.prod() * x.sum()

    def matrix(engine):
        return blocks(
            func, inputs, operation="hessian", strategy=strategy, chunk_size=5, engine=engine
        ).matrix()

    assert_same(matrix("captured"), matrix("plain"), 1e-10)
    expected = [(6, 4)] if scale.numel() <= 4 else [(6, 4), scale.shape]
    assert recorded == expected


@pytest.mark.parametrize("strategy", BATCHED)
def test_the_numbers_do_not_depend_on_the_first_block(strategy):
    inputs = (draw(6, 4), torch.tensor([0.7, 1.1], dtype=torch.float64))

    def func(x, scale):
        return (x.sin() * scale.sum().exp()).square().sum() + scale.prod() * x.sum()

    def stream():
        return blocks(
            func, inputs, operation="hessian", strategy=strategy, chunk_size=8, engine="captured"
        )

    in_order, last = stream(), stream()
    given = [block.values for block in in_order][-1]
    assert torch.equal(given, last.block(24, 26).values)


@pytest.mark.parametrize("strategy", BATCHED)
def test_flat_steps_and_others_give_the_same_numbers(strategy, monkeypatch):
    """Which of them compute depends on the time of a chunk, on which no number may depend."""
    x = draw(12)

    def func(x):
        for _ in range(8):
            x = torch.tanh(x.roll(1)) * x + torch.cumsum(x.sin(), 0)
        return x

    def matrix(is_short):
        noted = []

        def noted_short(program, count):
            noted.append(count)
            return is_short

        monkeypatch.setattr(Program, "is_short", noted_short)
        given = blocks(
            func, x, operation="jacobian", strategy=strategy, chunk_size=4, engine="captured"
        )
        found = given.matrix()
        assert given.engine == "captured"
        assert noted
        return found

    assert torch.equal(matrix(True), matrix(False))
    assert_same(matrix(True), torch.func.jacrev(func)(x), 1e-10)


def test_the_time_of_the_last_chunk_tells_whether_chunks_are_short():
    program = lower(record(lambda parts: (3 * parts[0],), (draw(3),)))
    assert not program.is_short(1)
    shortest_long = 10 * 10e-6  # ten times the bookkeeping of the only step
    program.note_seconds(4, 0.3 * shortest_long)
    # A larger chunk takes longer in proportion; a smaller one may take as long.
    assert [program.is_short(count) for count in (1, 4, 13, 14)] == [True, True, True, False]
    program.note_seconds(4, shortest_long)
    assert not any(program.is_short(count) for count in (1, 4, 16))


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient


def test_the_program_of_a_single_tensor_is_recorded_once(monkeypatch):
    """A custom function's Hessian is compared with differences before its rows are computed."""
    recorded = []
    record = captured.record

    def counted(*args):
        recorded.append(args)
        return record(*args)

    monkeypatch.setattr(captured, "record", counted)
    x = draw(6)

    def energy(x):
        return _Cube.apply(x).sin().prod()

    stream = blocks(energy, x, operation="hessian", strategy="vectorize", engine="captured")
    given = stream.matrix()
    assert stream.engine == "captured"
    assert len(recorded) == 1
    expected = torch.autograd.functional.hessian(lambda x: (x**3).sin().prod(), x)
    assert_same(given, expected, 1e-10)


def test_constants_that_are_changed_in_place_keep_their_values_in_a_program():
    """Constants that share memory are kept, and recorded again with their new values."""

    def linear(parts):
        (x,) = parts
        memory = torch.tensor([2.0, 3.0, 5.0], dtype=x.dtype)
        first = x * memory + x[:1] * memory[:1]
        memory.mul_(2)
        second = first * memory + x * memory[:1]
        memory.add_(1)
        return [second * memory]

    vectors = draw(4, 3)
    program = lower(captured.record(linear, (vectors[0],)))
    (given,) = program.apply([dense_stack(vectors)], 4)
    assert_same(given, torch.stack([linear((each,))[0] for each in vectors]))


@pytest.mark.parametrize("strategy", BATCHED)
def test_an_error_inside_torch_while_recording_leaves_autograd_as_it_was(strategy):
    """torch's quantiles work in place on a view and fail under functionalization."""
    x, levels = draw(6, 4), torch.tensor([0.25, 0.6], dtype=torch.float64)

    def quantiles(x):
        return torch.quantile(x, levels, dim=1)

    for _ in range(2):
        stream = blocks(quantiles, x, operation="jacobian", strategy=strategy, chunk_size=5)
        expected = torch.autograd.functional.jacobian(quantiles, x).reshape(12, 24)
        assert_same(stream.matrix(), expected, 1e-10)
    assert x.clone().requires_grad_().sin().requires_grad
