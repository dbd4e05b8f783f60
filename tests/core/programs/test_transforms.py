"""Fourier transforms give the numbers of torch, by half of a spectrum where that is enough."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autodiff_core import blocks
from tests.core.support.cases import MATRICES, assert_same, draw
from tests.core.support.operators import BATCHED

_aten = torch.ops.aten


def _waves(count):
    return torch.fft.fftfreq(count, 1 / count, dtype=torch.float64)


def _slopes(x):
    spectrum = torch.fft.fft2(x)
    along = [
        torch.fft.ifft2(1j * _waves(n).view(shape) * spectrum).real
        for n, shape in ((6, (6, 1)), (5, (1, 5)))
    ]
    return x * along[0] - along[1] ** 2


def _twice(x):
    waves = _waves(x.shape[0])[:, None]
    slope = 1j * waves * torch.fft.fft(x, dim=0)
    return torch.fft.ifft(1j * waves * slope + slope / (1 + waves**2), dim=0).real


def _of_two(x):
    first, second = torch.fft.fft(x), torch.fft.fft(x**2)
    weights = _waves(x.shape[1]) ** 2
    return torch.fft.ifft(-(weights * first + second) * 2 + draw(x.shape[1]) * first).real


def _steps(x):
    waves = torch.arange(x.shape[1] // 2 + 1, dtype=x.dtype)
    for _ in range(3):
        spectrum = torch.fft.rfft(x, norm="ortho")
        slope = torch.fft.irfft(1j * waves * spectrum, n=x.shape[1], norm="ortho")
        x = x + 0.1 * torch.fft.irfft(spectrum / (1 + waves**2), n=x.shape[1]) * slope
    return x


def _scaled_part(x):
    y = x.sin()
    y[:, 1:3] *= 3
    y[2] /= 2
    y[:, 1:] = y[:, :-1].clone() * 2
    return y**2


def _in_two_real_dimensions(x):
    return torch.fft.irfft2(torch.fft.rfft2(x) * draw(6, 3), s=(6, 5)) ** 2


def _in_other_order(x):
    spectrum = torch.fft.fftn(x, dim=(1, 0))
    return torch.fft.ifftn(spectrum * 2, dim=(1, 0)).real.sin()


def _in_one_and_two(x):
    return torch.fft.ifft2(torch.fft.fft(x.sin(), dim=0) * draw(6, 5)).real


# Those by half of each spectrum need no complex transform along one dimension.
BY_HALVES = {"sum of two": _of_two, "second derivative": _twice, "real transforms": _steps}
OTHERS = {
    "two dimensions": _slopes,
    "imaginary part": lambda x: torch.fft.ifft(torch.fft.fft(x) * draw(5)).imag * x,
    "back first": lambda x: torch.fft.fft(torch.fft.ifft(x**2) * 1j * _waves(5)).real,
    "forth twice": lambda x: torch.fft.fft(torch.fft.fft(x.sin()) * draw(5)).real,
    "conjugates": lambda x: torch.fft.ifft((-torch.fft.fft(x.cos()).conj() * 2j).conj()).real,
    "one part": lambda x: (torch.complex(x.cos(), draw(6, 5)) ** 3).abs() * x,
    "complex point": lambda x: torch.fft.ifft(torch.complex(x.sin(), x**2) * 1j).real,
    "padded": lambda x: torch.fft.ifft(torch.fft.rfft(x, n=5) ** 2, n=8).real,
    "cut": lambda x: torch.fft.irfft(torch.fft.rfft(x**2)[:, :2], n=4),
    "two real dimensions": _in_two_real_dimensions,
    "other order": _in_other_order,
    "dimensions that differ": _in_one_and_two,
    "scaled in place": _scaled_part,
}


@pytest.mark.parametrize("chunk_size", [4, 30])
@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("operation", MATRICES)
@pytest.mark.parametrize("name", [*BY_HALVES, *OTHERS])
def test_numbers_are_those_of_torch(name, operation, strategy, chunk_size):
    inner, x = {**BY_HALVES, **OTHERS}[name], draw(6, 5)
    func = inner if operation == "jacobian" else lambda x: (inner(x) ** 2).sum()
    expected = getattr(torch.autograd.functional, operation)(func, x).reshape(-1, 30)
    stream = blocks(
        func, x, operation=operation, strategy=strategy, chunk_size=chunk_size, engine="captured"
    )
    assert_same(stream.matrix(), expected, 1e-11)
    assert stream.engine == "captured", stream.engine_refusal


class _Called(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.packets = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.packets.append(func.overloadpacket)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("strategy", BATCHED)
@pytest.mark.parametrize("size", [5, 6])
@pytest.mark.parametrize("name", BY_HALVES)
def test_the_real_part_takes_half_of_a_spectrum(name, size, strategy):
    x = draw(6, size)
    stream = blocks(BY_HALVES[name], x, operation="jacobian", strategy=strategy, chunk_size=10)
    stream.block(0, 10)
    with _Called() as called:
        stream.block(10, 20)
    assert _aten._fft_c2r in called.packets
    assert _aten._fft_c2c not in called.packets
