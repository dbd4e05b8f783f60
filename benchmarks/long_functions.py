"""Functions that users bring, at sizes whose derivatives take a script ten seconds and more.

Each is a function of one tensor, beside a function `<name>_point` that returns the tensor, as in
`users.py`, from which come those of which only the point is larger, and what others consist of.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from users import (
    _drawn,
    attention,
    burgers,
    classified,
    integrator,
    likelihood,
    neighbour_energy,
    noisy_wave,
    with_messages,
)

__all__ = ["attention", "integrator", "neighbour_energy"]


def attention_point() -> Tensor:
    """Return 112 tokens of width 96."""
    return _drawn(112, 96, seed=35)


def integrator_point() -> Tensor:
    """Return a state of 4096 variables."""
    return 8 + _drawn(4096, seed=3)


def neighbour_energy_point() -> Tensor:
    """Return the positions of 2197 atoms near a cubic lattice."""
    grid = torch.cartesian_prod(*[torch.arange(13.0)] * 3)
    return grid + _drawn(2197, 3, seed=63, scale=0.05)


_DEEP = _drawn(24, 2200, 2200, seed=1, scale=2200**-0.5)


def deep_network(x: Tensor) -> Tensor:
    """Return the outputs of a network of 24 layers of width 2200."""
    for weight in _DEEP:
        x = torch.tanh(weight @ x)
    return x


def deep_network_point() -> Tensor:
    """Return the inputs."""
    return _drawn(2200, seed=2)


_IMAGES = _drawn(128, 1, 16, 16, seed=36)
_LABELS = torch.randint(10, (128,), generator=torch.Generator().manual_seed(37))
_SHAPES = [(8, 1, 3, 3), (8,), (16, 8, 3, 3), (16,), (10, 256), (10,)]


def convolutional_loss(parameters: Tensor) -> Tensor:
    """Return the loss of a convolutional network."""
    return classified(parameters, _SHAPES, _IMAGES, _LABELS)


def convolutional_loss_point() -> Tensor:
    """Return the parameters."""
    return _drawn(sum(map(math.prod, _SHAPES)), seed=38, scale=0.2)


_WIDTH = 64
_HIDDEN = [
    _drawn(2, _WIDTH, seed=50),
    _drawn(_WIDTH, _WIDTH, seed=51, scale=0.2),
    _drawn(_WIDTH, 1, seed=52),
]
_PLACES = torch.rand(256, 2, generator=torch.Generator().manual_seed(53))


def heat_loss(parameters: Tensor) -> Tensor:
    """Return the mean square residual of the heat equation for a network u(x, t)."""
    first, second, last = parameters.split([w.numel() for w in _HIDDEN])

    def u(place: Tensor) -> Tensor:
        hidden = torch.tanh(place @ first.reshape(2, _WIDTH))
        return (torch.tanh(hidden @ second.reshape(_WIDTH, _WIDTH)) @ last.reshape(_WIDTH, 1))[0]

    def residual(place: Tensor) -> Tensor:
        slope = torch.func.grad(u)
        along_x = torch.tensor([1.0, 0.0], dtype=place.dtype)
        curved = torch.func.jvp(slope, (place,), (along_x,))[1][0]
        return slope(place)[1] - curved

    return torch.func.vmap(residual)(_PLACES).square().mean()


def heat_loss_point() -> Tensor:
    """Return the parameters of the network."""
    return torch.cat([weight.reshape(-1) for weight in _HIDDEN])


_TARGETS = _drawn(300, seed=33)


def marginal_likelihood(places: Tensor) -> Tensor:
    """Return the negative log marginal likelihood of a Gaussian process."""
    return likelihood(places, _TARGETS)


def marginal_likelihood_point() -> Tensor:
    """Return 300 places in space."""
    return _drawn(300, 3, seed=34)


_EDGES = torch.randint(600, (2, 4500), generator=torch.Generator().manual_seed(70))
_LAYERS = [_drawn(16, 16, seed=71 + i, scale=0.3) for i in range(4)]


def graph_network(nodes: Tensor) -> Tensor:
    """Return the nodes of a graph after four rounds of messages along its edges."""
    return with_messages(nodes, _EDGES, _LAYERS)


def graph_network_point() -> Tensor:
    """Return 16 features of each of 600 nodes."""
    return _drawn(600, 16, seed=73)


_MODES = torch.fft.rfftfreq(2048, 1.0 / 2048)


def spectral(u: Tensor) -> Tensor:
    """Return the solution of Burgers' equation after 100 pseudo-spectral steps."""
    return burgers(u, _MODES, 100)


def spectral_point() -> Tensor:
    """Return a wave with noise at 2048 places."""
    return noisy_wave(2048)


OPERATIONS = {
    "deep_network": "jacobian",
    "convolutional_loss": "hessian",
    "heat_loss": "hessian",
    "attention": "jacobian",
    "marginal_likelihood": "hessian",
    "integrator": "jacobian",
    "graph_network": "jacobian",
    "neighbour_energy": "hessian",
    "spectral": "jacobian",
}
"""The operation by which each function is differentiated."""
