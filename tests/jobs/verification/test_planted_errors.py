"""The probe check finds one wrong entry in a matrix of 10,000 x 10,000, and passes honest ones."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from autodiff_core import Axis, Block
from jobs.verification.numerics import Probe
from jobs.verification.probe_check import ProbeCheck

LENGTH = 10_000
LINES = 64
TRIALS = 50


def drawn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def probe_vector(generator: torch.Generator) -> Tensor:
    return (0.5 + torch.rand(LENGTH, generator=generator, dtype=torch.float64)) * torch.sign(
        drawn(generator, LENGTH)
    )


def flip_a_sign(values: Tensor, generator: torch.Generator) -> None:
    """In an entry of typical magnitude: a standard normal one between 1/2 and 2."""
    while True:
        line, place = (int(torch.randint(n, (), generator=generator)) for n in values.shape)
        if 0.5 < abs(values[line, place]) < 2:
            values[line, place] *= -1
            return


def swap_two_lines(values: Tensor, generator: torch.Generator) -> None:
    first, second = torch.randperm(len(values), generator=generator)[:2].tolist()
    values[[first, second]] = values[[second, first]]


def zero_a_tile(values: Tensor, generator: torch.Generator) -> None:
    line = int(torch.randint(len(values) - 4, (), generator=generator))
    place = int(torch.randint(LENGTH - 16, (), generator=generator))
    values[line : line + 4, place : place + 16] = 0


def leave_a_stale_block(values: Tensor, generator: torch.Generator) -> None:
    values[:] = drawn(generator, *values.shape)


def flip_a_bit(values: Tensor, generator: torch.Generator) -> None:
    """Of the exponent, as a disk may."""
    line, place = (int(torch.randint(n, (), generator=generator)) for n in values.shape)
    values.view(torch.int64)[line, place] ^= 1 << 52


@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize(
    "plant", [flip_a_sign, swap_two_lines, zero_a_tile, leave_a_stale_block, flip_a_bit]
)
def test_a_planted_error_is_found_wherever_it_is(
    plant: Callable[[Tensor, torch.Generator], None], axis: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    lines = drawn(generator, LINES, LENGTH)
    vector = probe_vector(generator)
    probe = Probe(vector, lines @ vector)
    check = ProbeCheck(
        probe, probe, probe, torch.finfo(torch.float64).eps ** 0.5, 0.0, is_product=False
    )

    def block(values: Tensor) -> Block:
        return Block(Axis(axis), 0, LINES, (values,), torch.float64)

    assert check.error(block(lines)) <= check.tolerance
    for _ in range(TRIALS):
        values = lines.clone()
        plant(values, generator)
        assert check.error(block(values)) > check.tolerance
