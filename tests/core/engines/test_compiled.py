"""The compiled engine gives the numbers of the plain one; the captured engine is its fallback."""

import pytest
import torch

from autodiff_core import blocks
from autodiff_core._engines import compiled
from tests.core.support.cases import assert_same, draw
from tests.core.support.operators import BATCHED, OPERATORS


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("shifts", "vectorize"),
        ("gather", "forward-mode"),
        ("linear", "vectorize"),
        ("convolution", "forward-mode"),
    ],
)
def test_compiled_chunks_equal_plain_ones(name, strategy):
    given, expected = (
        blocks(
            lambda x, y: OPERATORS[name](x) * y.sum(),
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
    # A larger chunk than the compiled size, which may cover two tensors.
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


def _time_steps(x: torch.Tensor) -> torch.Tensor:
    for _ in range(60):
        x = x + 0.1 * torch.roll(x, 1, 0) * x.sin()
    return x


@pytest.mark.parametrize("strategy", BATCHED)
def test_repeated_segments_of_a_long_program_are_compiled(strategy):
    given, expected = (
        blocks(
            _time_steps,
            draw(9),
            operation="jacobian",
            strategy=strategy,
            chunk_size=4,
            engine=engine,
        )
        for engine in ("compiled", "plain")
    )
    assert_same(given.matrix(), expected.matrix(), 1e-10)
    assert (given.engine, given.engine_refusal) == ("compiled", None)


def test_a_wrong_kernel_of_a_segment_is_not_used(monkeypatch):
    def wrong(traced, *given):
        return lambda *values: [1.01 * each for each in traced(*values)]

    monkeypatch.setattr(compiled, "compiled_now", wrong)
    stream = blocks(
        _time_steps,
        draw(9),
        operation="jacobian",
        strategy="forward-mode",
        chunk_size=4,
        engine="compiled",
    )
    expected = torch.autograd.functional.jacobian(_time_steps, draw(9))
    assert_same(stream.matrix(), expected, 1e-12)
    assert stream.engine == "captured"
    assert "disagreed with the plain one" in str(stream.engine_refusal)


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
def test_the_captured_program_is_used_if_the_compiler_fails(compiler, steps, reason, monkeypatch):
    monkeypatch.setattr(compiled, "compiled", compiler)
    monkeypatch.setattr(compiled, "MOST_STEPS", steps)
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
