"""The engines behind the batched strategies give the numbers of the plain one."""

import warnings

import pytest
import torch
from torch.nn import functional

from autodiff_core import blocks, engines
from autodiff_core._engines import captured as _captured
from autodiff_core._engines import compiled as _compiled
from autodiff_core._tensors import linear_combination as _linear_combination
from tests.core.support import cases
from tests.core.support.cases import MATRICES, PRODUCTS, assert_same, draw
from tests.core.support.resisting import FUNCTIONS, Refused, sum_of_squares

BATCHED = ("vectorize", "forward-mode")
# What cannot be recorded: tangents of work in place, of a product's branches, of a scan, and a
# backward that writes into a view.
REFUSED = {
    ("jacobian", "in place inside", "forward-mode"),
    ("jvp", "in place inside", "forward-mode"),
    ("hessian", "one-element tuple in", "forward-mode"),
    ("hvp", "one-element tuple in", "forward-mode"),
    ("jacobian", "cumulative", "forward-mode"),
    ("jacobian", "fourier", "vectorize"),
    ("jacobian", "into a buffer", "vectorize"),
    ("jacobian", "into a buffer", "forward-mode"),
}
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
    assert sum(len(block.fallbacks) for block in given) == (0 if is_captured else 1)


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

    captured = stream("captured")
    given = captured.matrix()
    assert_same(given, stream("plain").matrix(), 1e-5 if name == "float32" else 1e-10)
    assert (captured.engine_refusal is None) == ((operation, name, strategy) not in REFUSED)


WEIGHT = draw(5, 4, seed=1) - 0.7
OTHER = draw(4, 4, seed=2) + 2 * torch.eye(4, dtype=torch.float64)
INDEX = torch.tensor([3, 0, 0, 2, 5])

# Each passes through operators with a rule of their own; x has shape (6, 4).
OPERATORS = {
    "linear": lambda x: functional.linear(x, WEIGHT, WEIGHT[:, 0]).tanh(),
    "linear of a vector": lambda x: functional.linear(x[1], WEIGHT).sigmoid(),
    "matrix times": lambda x: draw(3, 6) @ x.sin(),
    "matrix vector": lambda x: x.exp() @ WEIGHT[0],
    "batched matrices": lambda x: x.reshape(2, 3, 4).sin() @ draw(2, 4, 3),
    "matrices of it": lambda x: (x.T @ x.cos()) @ x.T,
    "softmax": lambda x: x.softmax(0) * x.log_softmax(1),
    "layer norm": lambda x: functional.layer_norm(x, (4,), WEIGHT[0], WEIGHT[1]),
    "layer norm, plain": lambda x: functional.layer_norm(x * x, (6, 4)),
    "activations": lambda x: (
        functional.gelu(x) + functional.silu(x) * functional.relu(x - 0.6) + functional.elu(x)
    ),
    "more activations": lambda x: functional.softplus(x) * functional.leaky_relu(x - 0.7),
    "gather": lambda x: (x[INDEX] * x[INDEX.flip(0)]).sum(1),
    "gather of elements": lambda x: x[INDEX, INDEX % 4] ** 2,
    "negative indices": lambda x: x[:, torch.tensor([-1, 1])] ** 2,
    "index_select": lambda x: x.sin().index_select(1, INDEX % 4),
    "index_add": lambda x: torch.zeros_like(x[:3]).index_add(0, INDEX[:4] % 3, x[:4] ** 2),
    "gather and scatter": lambda x: x.cos().gather(0, INDEX[:, None]).repeat(1, 2),
    "mask": lambda x: torch.where(x > 0.6, x**2, x.sin()).masked_fill(x > 1, 0.5),
    "boolean mask": lambda x: x[x > 0.5].sin(),
    "shifts": lambda x: x.roll(2, 0) * x.roll(-1, 1) + x.flip(0) * x.roll((1, 1), (0, 1)),
    "slices": lambda x: x[1:5] * x[:4, :] + x[2:, 1:2] ** 2,
    "strided slices": lambda x: x[::2] * x[1::2].exp(),
    "selects": lambda x: torch.stack([x[0] * x[5], x[2].sin()], 1),
    "concatenation": lambda x: torch.cat([x[:2] ** 2, torch.ones(1, 4), x.sin()]) * 2,
    "heads": lambda x: (
        torch.stack([x.sin(), x**2, torch.ones_like(x)]).permute(1, 2, 0).reshape(6, 12)
        @ draw(12, 3)
    ),
    "heads, taken twice": lambda x: _taken_twice(torch.cat([x.sin()[:, None], x[:, None]], 1)),
    "unbind": lambda x: sum(part * (i + 1) for i, part in enumerate(x.sin().unbind(1))),
    "split": lambda x: torch.cat([part.sin() * 2 for part in x.split(4)]),
    "reductions": lambda x: x.sin().mean(0) * x.prod(1).sum() + x.cos().sum(),
    "views": lambda x: (x.reshape(4, 6).T ** 2).reshape(2, 3, 4).permute(2, 0, 1).flatten(1),
    "broadcasting": lambda x: x[:, :1].sin() * x[:1] + x.sum(1, keepdim=True),
    "outer": lambda x: torch.outer(x[:, 0].sin(), x[0]),
    "subtraction": lambda x: 3 - x.sin() - torch.rsub(x, x.exp()) / x,
    "division": lambda x: x.sin() / (1 + x[:, :1] ** 2),
    "triangles": lambda x: (x[:4].tril() @ x[:4].triu(1)).sin(),
    "triangular solve": lambda x: torch.linalg.solve_triangular(OTHER.triu(), x.T, upper=True),
    "cholesky": lambda x: torch.linalg.cholesky(x.T @ x + OTHER @ OTHER.T),
    "cholesky solve": lambda x: torch.cholesky_solve(
        x.T, torch.linalg.cholesky(OTHER @ OTHER.T + x[:4].diag().diag())
    ),
    "solve": lambda x: torch.linalg.solve(OTHER + x[:4], x.T),
    "determinant": lambda x: torch.logdet(x.T @ x + OTHER @ OTHER.T),
    "convolution": lambda x: functional.conv1d(x[None], draw(3, 6, 2) - 0.5).sin(),
    "pooling": lambda x: functional.max_pool2d(x[None], 2),
    "norms": lambda x: x.norm(dim=1) * x.norm(),
    "cumulative": lambda x: x.cumsum(0) * x.cumprod(1),
    "sorting": lambda x: x.sort(0).values ** 2,
    "in place": lambda x: x.sin().mul_(x).add_(x.exp()),
    "into a buffer": lambda x: _into_a_buffer(x),
    "two dtypes": lambda x: (x.float() ** 2).double() + x,
    "fourier": lambda x: torch.fft.rfft(x, dim=0).abs(),
    "einsum": lambda x: torch.einsum("ij,kj,kl->il", x, WEIGHT, draw(5, 3)) ** 2,
}


def _taken_twice(joined):
    turned = joined.permute(2, 0, 1)
    return turned.reshape(4, 12).exp() @ joined.permute(0, 2, 1).reshape(12, 4)


def _into_a_buffer(x):
    buffer = torch.zeros(6, 4, dtype=x.dtype)
    for row in range(6):
        buffer[row] = x[row] ** (row + 1)
    return buffer.sin()


@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("operation", MATRICES)
@pytest.mark.parametrize("name", OPERATORS)
def test_every_rule_gives_the_numbers_of_the_plain_engine(name, operation, strategy, monkeypatch):
    # As for large tensors, whose memory is used again.
    monkeypatch.setattr(_linear_combination, "FEW_ELEMENTS", 1)
    inner = OPERATORS[name]
    func = inner if operation == "jacobian" else lambda x: (inner(x) ** 2).sum()
    with torch.random.fork_rng():
        given, expected = (
            blocks(
                func,
                draw(6, 4),
                operation=operation,
                strategy=strategy,
                chunk_size=5,
                engine=engine,
            ).matrix()
            for engine in ("captured", "plain")
        )
    assert_same(given, expected, 1e-5 if name == "two dtypes" else 1e-10)


@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("name", OPERATORS)
def test_which_are_captured(name, strategy):
    stream = blocks(OPERATORS[name], draw(6, 4), operation="jacobian", strategy=strategy)
    stream.block(0, 1)
    expected = "plain" if ("jacobian", name, strategy) in REFUSED else "captured"
    assert stream.engine == expected, stream.engine_refusal


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("operation", MATRICES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_resists_gives_what_the_plain_engine_gives(name, operation, strategy):
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
    """A backward that reads its argument's numbers where no operator shows it."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients):
        return torch.from_numpy(gradients[0].numpy() * 2.0)


def test_a_capture_that_disagrees_is_not_used_and_told():
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


def test_auto_falls_back_without_a_record_of_a_slower_way():
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
def test_outputs_of_other_inputs_are_zero_and_blocks_are_their_own(strategy):
    def func(x, y):
        return x.sin(), y.cos()

    point = draw(30), draw(30, seed=1)
    stream = blocks(func, point, operation="jacobian", strategy=strategy, chunk_size=30)
    first, second = (block.values.clone() for block in stream)
    again = [block.values for block in stream]
    assert_same(again[0], first)
    assert_same(again[1], second)
    assert not first[..., 30:].any() if strategy == "vectorize" else not first[30:].any()


def test_names():
    assert engines("jacobian", "vectorize") == ("plain", "captured", "compiled")
    assert engines("hessian", "forward-loop") == ("plain",)
    with pytest.raises(ValueError, match="vhp"):
        engines("vhp", "forward-mode")
    with pytest.raises(ValueError, match=r"engine='captured'.*auto, plain"):
        blocks(torch.sin, draw(2), operation="jacobian", engine="captured")


COMPILED = {
    "shifts": OPERATORS["shifts"],
    "gather": OPERATORS["gather"],
    "linear": OPERATORS["linear"],
    "convolution": OPERATORS["convolution"],
}


@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_chunks_equal_plain_ones(name, strategy):
    given, expected = (
        blocks(
            lambda x, y: COMPILED[name](x) * y.sum(),
            (draw(6, 4), draw(3)),
            operation="jacobian",
            strategy=strategy,
            chunk_size=7,
            engine=engine,
        )
        for engine in ("compiled", "plain")
    )
    assert_same(given.matrix(), expected.matrix(), 1e-10)
    assert (given.engine, given.engine_refusal) == ("compiled", None)
    # A larger chunk than that for which was compiled, across two tensors or not.
    stop = min(15, given.shape[given.axis == "columns"])
    assert_same(given.block(2, stop).values, expected.block(2, stop).values, 1e-10)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("strategy", BATCHED)
def test_chunks_of_a_cuda_graph_do_not_overwrite_one_another(strategy):
    func, point = OPERATORS["shifts"], draw(6, 4)
    stream = blocks(
        func,
        point.cuda(),
        operation="jacobian",
        strategy=strategy,
        chunk_size=5,
        engine="compiled",
    )
    kept = list(stream)
    assert (stream.engine, stream.engine_refusal) == ("compiled", None)
    given = torch.cat([block.values for block in kept], 0 if strategy == "vectorize" else 1)
    expected = torch.autograd.functional.jacobian(func, point).reshape(24, 24)
    assert_same(given.cpu(), expected, 1e-10)


def test_compiled_products_equal_plain_ones():
    given, expected = (
        blocks(
            lambda x: (OPERATORS["shifts"](x) ** 3).sum(),
            draw(6, 4),
            operation="hvp",
            strategy="forward-mode",
            vectors=draw(5, 6, 4),
            chunk_size=2,
            engine=engine,
        )
        for engine in ("compiled", "plain")
    )
    assert_same(given.matrix(), expected.matrix(), 1e-10)
    assert given.engine == "compiled"


def _wrong_by_an_entry(traced, **options):
    def run(*tensors):
        images = [image.clone() for image in traced(*tensors)]
        images[0].view(-1)[0] += 0.01
        return images

    return run


def _broken(traced, **options):
    raise AssertionError("no kernel for this")


@pytest.mark.parametrize(
    ("compiler", "steps", "reason"),
    [
        (_wrong_by_an_entry, 100, "disagreed with the plain one"),
        (_broken, 100, "no kernel for this"),
        (_wrong_by_an_entry, 0, "takes too long"),
    ],
)
def test_a_compiler_that_fails_leaves_the_captured_program(compiler, steps, reason, monkeypatch):
    monkeypatch.setattr(_compiled, "compiled", compiler)
    monkeypatch.setattr(_compiled, "MOST_STEPS", steps)
    stream = blocks(
        lambda x: x.sin() * x.flip(0),
        draw(9),
        operation="jacobian",
        strategy="forward-mode",
        chunk_size=4,
        engine="compiled",
    )
    given = list(stream)
    expected = torch.autograd.functional.jacobian(lambda x: x.sin() * x.flip(0), draw(9))
    assert_same(torch.cat([block.values for block in given], 1), expected, 1e-12)
    assert stream.engine == "captured"
    assert reason in str(stream.engine_refusal)
    ((fallback,), *others) = [block.fallbacks for block in given]
    assert fallback.instead == "the captured engine"
    assert not any(others)


@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize(
    "scale", [torch.tensor(0.7), torch.linspace(0.5, 1, 4), torch.linspace(0.5, 1, 5)]
)
def test_a_few_parameters_beside_many_have_no_program_of_their_own(scale, strategy, monkeypatch):
    recorded = []
    record = _captured.record

    def watched(linear_map, vector):
        recorded.append(vector[0].shape)
        return record(linear_map, vector)

    monkeypatch.setattr(_captured, "record", watched)
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
def test_who_begins_with_few_parameters_gets_the_same_numbers(strategy):
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
