"""Blocks over several tensors form one matrix, without a copy if they are adjacent."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from autodiff_core import blocks
from autodiff_core._tensors.contiguous import empty_side_by_side, joined
from tests.core.support.cases import assert_same, draw

SHAPES = ((2, 3), (), (4,), (0,), (1, 2))
WIDTH = 13


def _pieces(count=5):
    parts = empty_side_by_side(count, SHAPES, partial(torch.empty, dtype=torch.float64))
    return [part.reshape(count, -1) for part in parts]


def _shares_memory(first, second):
    return first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()


def test_adjacent_stacks_are_joined_without_a_copy():
    pieces = _pieces()
    whole = joined(pieces)
    whole.copy_(draw(5, WIDTH))
    assert_same(torch.cat(pieces, 1), draw(5, WIDTH), 0)
    assert whole.is_contiguous()


def _of_other_order():
    return _pieces()[::-1]


def _with_a_gap():
    pieces = _pieces()
    return [pieces[0], pieces[4]]


def _of_other_memory():
    pieces = _pieces()
    return [*pieces[:-1], pieces[-1].clone()]


def _of_other_stride():
    pieces = _pieces()
    return [pieces[0][::2], pieces[2][1:4]]


def _past_the_next_line():
    # The columns are adjacent, but a line over all of them would reach into the next line.
    memory = torch.empty(8, dtype=torch.float64)
    return [memory.as_strided((2, 2), (3, 1), first) for first in (0, 2)]


def _over_points():
    return [piece.reshape(5, 1, -1) for piece in _pieces()]


@pytest.mark.parametrize(
    "make",
    [
        _of_other_order,
        _with_a_gap,
        _of_other_memory,
        _of_other_stride,
        _past_the_next_line,
        _over_points,
    ],
)
def test_stacks_that_are_not_adjacent_are_copied(make):
    pieces = make()
    for number, piece in enumerate(pieces):
        piece.fill_(number)
    whole = joined(pieces)
    assert torch.equal(whole, torch.cat(pieces, -1))
    assert not any(_shares_memory(whole, piece) for piece in pieces)


def _network(rows, widths):
    """Return a network's outputs as a function of its parameters, and the parameters.

    Wide layers on few rows are products of few terms with many results, written in place one by
    one; a single row is written in place as a whole.
    """
    generator = torch.Generator().manual_seed(3)
    layers = [nn.Linear(*pair, dtype=torch.float64) for pair in pairwise(widths)]
    parameters = tuple(
        torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 4
        for layer in layers
        for parameter in layer.parameters()
    )
    inputs = draw(rows, widths[0])

    def outputs(*parameters):
        x = inputs
        for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
            x = torch.tanh(x @ weight.T + bias)
        return x

    return outputs, parameters


SMALL = (3, 4, 2)
WIDE = (200, 170, 2)


@pytest.mark.parametrize(
    ("rows", "widths", "chunk_size", "engine"),
    [
        (1, SMALL, 1, "captured"),
        (1, SMALL, 2, "captured"),
        (5, SMALL, 1, "captured"),
        (5, SMALL, 3, "captured"),
        (4, WIDE, 1, "captured"),
        (4, WIDE, 3, "captured"),
        (40, (6, 5, 1), 3, "captured"),
        (5, SMALL, 3, "compiled"),
    ],
)
def test_a_parameter_jacobian_is_written_in_place(rows, widths, chunk_size, engine):
    func, parameters = _network(rows, widths)
    stream = blocks(
        func,
        parameters,
        operation="jacobian",
        strategy="vectorize",
        chunk_size=chunk_size,
        engine=engine,
    )
    stop = min(4, stream.shape[0])
    expected = torch.autograd.functional.jacobian(lambda *p: func(*p).flatten()[:stop], parameters)
    truth = torch.cat([part.flatten(1) for part in expected], 1)
    given = list(stream)
    kept = torch.cat([block.values for block in given])
    assert_same(kept[:stop], truth, 1e-12)
    assert (stream.engine, stream.engine_refusal) == (engine, None)
    if engine == "captured":
        # The first block of an engine is the one that was compared with the plain one.
        assert all(_shares_memory(block.values, block.pieces[0]) for block in given[1:])
    assert all(block.values is block.values for block in given)


TWICE = {
    "the same output twice": lambda x, y: (x @ y, x @ y),
    "an output and its transpose": lambda x, y: _with_its_transpose(x @ y),
    "an output and a part of it": lambda x, y: _with_a_part(x @ y),
    "an argument itself": lambda x, y: (x, y, x.T),
    "independent outputs": lambda x, y: (x.sin(), y.cos()),
    "rows that are picked": lambda x, y: (x[torch.tensor([2, 0])], y.sum(0)),
    "no output of one": lambda x, y: (x.detach() * 2, y.exp()),
}


def _with_its_transpose(z):
    return z, z.T, z.reshape(-1)


def _with_a_part(z):
    return z[:1], z, z.sin()


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
@pytest.mark.parametrize("name", TWICE)
def test_images_that_are_parts_of_each_other(name, strategy):
    point = draw(3, 4), draw(4, 3, seed=1)
    stream = blocks(
        TWICE[name],
        point,
        operation="jacobian",
        strategy=strategy,
        chunk_size=5,
        engine="captured",
    )
    expected = torch.autograd.functional.jacobian(TWICE[name], point)
    truth = torch.cat([torch.cat([part.reshape(-1, 12) for part in row], 1) for row in expected], 0)
    assert_same(stream.matrix(), truth, 1e-12)
    assert stream.engine == "captured"
