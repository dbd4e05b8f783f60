"""Functions of kinds that users bring: the second set of the speed benchmark.

Each is a module-level function of one tensor, beside a function `<name>_point` that returns the
tensor, so that a job can name it as ``benchmarks/users.py:<name>``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def _drawn(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator) * scale


def _cells() -> nn.GRU:
    torch.manual_seed(1)
    return nn.GRU(32, 96).requires_grad_(False)


_CELLS = _cells()


def recurrent(x: Tensor) -> Tensor:
    """Return the outputs of all steps of a recurrent network."""
    return _CELLS(x[:, None])[0][:, 0]


def recurrent_point() -> Tensor:
    """Return the inputs of 48 steps."""
    return _drawn(48, 32, seed=2)


def _lorenz96(x: Tensor) -> Tensor:
    return (torch.roll(x, -1) - torch.roll(x, 2)) * torch.roll(x, 1) - x + 8.0


def integrator(x: Tensor) -> Tensor:
    """Return the state after 40 Runge-Kutta steps of the Lorenz-96 model."""
    step = 0.01
    for _ in range(40):
        k1 = _lorenz96(x)
        k2 = _lorenz96(x + step / 2 * k1)
        k3 = _lorenz96(x + step / 2 * k2)
        k4 = _lorenz96(x + step * k3)
        x = x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def integrator_point() -> Tensor:
    """Return a state of 512 variables."""
    return 8 + _drawn(512, seed=3)


_MODES = torch.fft.rfftfreq(1024, 1.0 / 1024)


def burgers(u: Tensor, modes: Tensor, steps: int) -> Tensor:
    """Return the solution of Burgers' equation after pseudo-spectral steps."""
    for _ in range(steps):
        transformed = torch.fft.rfft(u)
        slope = torch.fft.irfft(1j * modes * transformed, n=len(u))
        transformed = (transformed - 1e-3 * torch.fft.rfft(u * slope)) / (1 + 1e-5 * modes**2)
        u = torch.fft.irfft(transformed, n=len(u))
    return u


def spectral(u: Tensor) -> Tensor:
    """Return the solution of Burgers' equation after 10 pseudo-spectral steps."""
    return burgers(u, _MODES, 10)


def noisy_wave(places: int) -> Tensor:
    """Return a wave with noise."""
    wave = torch.sin(2 * math.pi * torch.arange(places) / places)
    return wave + _drawn(places, seed=31, scale=0.1)


def spectral_point() -> Tensor:
    """Return a wave with noise at 1024 places."""
    return noisy_wave(1024)


_TARGETS = _drawn(160, seed=33)


def likelihood(places: Tensor, targets: Tensor) -> Tensor:
    """Return the negative log marginal likelihood of a Gaussian process with given targets."""
    squared = (places[:, None] - places[None]).square().sum(-1)
    covariance = torch.exp(-0.5 * squared) + 0.5 * torch.eye(len(places), dtype=places.dtype)
    factor = torch.linalg.cholesky(covariance)
    weights = torch.cholesky_solve(targets[:, None], factor)
    return 0.5 * (targets @ weights[:, 0]) + factor.diagonal().log().sum()


def marginal_likelihood(places: Tensor) -> Tensor:
    """Return the negative log marginal likelihood of a Gaussian process."""
    return likelihood(places, _TARGETS)


def marginal_likelihood_point() -> Tensor:
    """Return 160 places in space."""
    return _drawn(160, 3, seed=34)


_IMAGES = _drawn(64, 1, 12, 12, seed=36)
_LABELS = torch.randint(10, (64,), generator=torch.Generator().manual_seed(37))
_SHAPES = [(6, 1, 3, 3), (6,), (12, 6, 3, 3), (12,), (10, 108), (10,)]
_SIZES = [math.prod(shape) for shape in _SHAPES]


def classified(
    parameters: Tensor, shapes: list[tuple[int, ...]], images: Tensor, labels: Tensor
) -> Tensor:
    """Return the loss of a convolutional network of given shapes."""
    parts = parameters.split([math.prod(shape) for shape in shapes])
    a, ab, b, bb, c, cb = (p.reshape(shape) for p, shape in zip(parts, shapes, strict=True))
    x = torch.tanh(F.avg_pool2d(F.conv2d(images, a, ab, padding=1), 2))
    x = torch.tanh(F.avg_pool2d(F.conv2d(x, b, bb, padding=1), 2))
    return F.cross_entropy(x.flatten(1) @ c.T + cb, labels)


def convolutional_loss(parameters: Tensor) -> Tensor:
    """Return the loss of a convolutional network."""
    return classified(parameters, _SHAPES, _IMAGES, _LABELS)


def convolutional_loss_point() -> Tensor:
    """Return the parameters."""
    return _drawn(sum(_SIZES), seed=38, scale=0.2)


_PROJECTIONS = [_drawn(288, 96, seed=40 + i, scale=0.1) for i in range(2)]


def attention(x: Tensor) -> Tensor:
    """Return the tokens after two layers of causal attention with four heads."""
    for weight in _PROJECTIONS:
        qkv = F.linear(F.layer_norm(x, (96,)), weight).reshape(len(x), 3, 4, 24)
        q, k, v = qkv.permute(1, 2, 0, 3)[:, None]
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)[0]
        x = x + F.gelu(attended.transpose(0, 1).reshape(x.shape))
    return x


def attention_point() -> Tensor:
    """Return 32 tokens of width 96."""
    return _drawn(32, 96, seed=35)


_HIDDEN = [_drawn(1, 48, seed=50), _drawn(48, 48, seed=51, scale=0.2), _drawn(48, 1, seed=52)]
_TIMES = torch.linspace(0, 1, 64)


def residual(parameters: Tensor) -> Tensor:
    """Return the residuals of u'' + u = 0 for a network u, with the derivatives inside."""
    first, second, last = parameters.split([w.numel() for w in _HIDDEN])

    def u(t: Tensor) -> Tensor:
        hidden = torch.tanh(t.reshape(1, 1) @ first.reshape(1, 48))
        return (torch.tanh(hidden @ second.reshape(48, 48)) @ last.reshape(48, 1))[0, 0]

    second_derivative = torch.func.grad(torch.func.grad(u))
    return torch.func.vmap(lambda t: second_derivative(t) + u(t))(_TIMES)


def residual_point() -> Tensor:
    """Return the parameters of the network."""
    return torch.cat([weight.reshape(-1) for weight in _HIDDEN])


_KERNELS = [_drawn(8, 1, 3, 3, seed=60, scale=0.3), _drawn(1, 8, 3, 3, seed=61, scale=0.3)]


def segmentation(image: Tensor) -> Tensor:
    """Return the output of a network with pooling and a skip connection, for each pixel."""
    hidden = torch.tanh(F.conv2d(image[None, None], _KERNELS[0], padding=1))
    coarse = F.interpolate(F.avg_pool2d(hidden, 2), scale_factor=2, mode="nearest")
    return F.conv2d(torch.sigmoid(hidden + coarse), _KERNELS[1], padding=1)[0, 0]


def segmentation_point() -> Tensor:
    """Return an image of 32 x 32 pixels."""
    return _drawn(32, 32, seed=62)


def neighbour_energy(positions: Tensor) -> Tensor:
    """Return the energy of the pairs within a cutoff, which are found inside the function."""
    with torch.no_grad():
        near = torch.cdist(positions, positions) < 2.0
        first, second = near.triu(1).nonzero(as_tuple=True)
    squared = (positions[first] - positions[second]).square().sum(-1)
    pairs = torch.exp(-squared) * (4 - squared) ** 2
    density = torch.zeros(len(positions)).index_add(0, first, pairs).index_add(0, second, pairs)
    return pairs.sum() - density.add(1).sqrt().sum()


def neighbour_energy_point() -> Tensor:
    """Return the positions of 216 atoms near a cubic lattice."""
    grid = torch.cartesian_prod(*[torch.arange(6.0)] * 3)
    return grid + _drawn(216, 3, seed=63, scale=0.05)


def eigenvalues(matrix: Tensor) -> Tensor:
    """Return the eigenvalues of the symmetric part of a matrix."""
    return torch.linalg.eigvalsh(matrix + matrix.mT)


def eigenvalues_point() -> Tensor:
    """Return a matrix of 48 x 48."""
    return _drawn(48, 48, seed=64)


_EDGES = torch.randint(80, (2, 400), generator=torch.Generator().manual_seed(70))
_LAYERS = [_drawn(16, 16, seed=71 + i, scale=0.3) for i in range(2)]


def with_messages(nodes: Tensor, edges: Tensor, layers: list[Tensor]) -> Tensor:
    """Return the nodes of a graph after a round of messages along its edges for each layer."""
    sender, receiver = edges
    for weight in layers:
        messages = torch.tanh((nodes[sender] + nodes[receiver]) @ weight)
        where = receiver[:, None].expand_as(messages)
        nodes = nodes + torch.zeros_like(nodes).scatter_add(0, where, messages)
    return nodes


def graph_network(nodes: Tensor) -> Tensor:
    """Return the nodes of a graph after two rounds of messages along its edges."""
    return with_messages(nodes, _EDGES, _LAYERS)


def graph_network_point() -> Tensor:
    """Return 16 features of each of 80 nodes."""
    return _drawn(80, 16, seed=73)


_WORDS = torch.randint(60, (64, 12), generator=torch.Generator().manual_seed(74))
_CLASSES = _drawn(32, 5, seed=75)


def word_classes(words: Tensor) -> Tensor:
    """Return the scores of 64 sentences, from the means of the embeddings of their words."""
    return torch.tanh(F.embedding(_WORDS, words).mean(1)) @ _CLASSES


def word_classes_point() -> Tensor:
    """Return the embeddings of 60 words."""
    return _drawn(60, 32, seed=76)


_SOURCE = torch.linspace(0.5, 1.5, 199)


def diffusion(logarithms: Tensor) -> Tensor:
    """Return the solution of -(k u')' = f on an interval, by the logarithm of k."""
    k = torch.exp(logarithms)
    matrix = torch.diag(k[:-1] + k[1:]) - torch.diag(k[1:-1], 1) - torch.diag(k[1:-1], -1)
    return torch.linalg.solve(matrix, _SOURCE)


def diffusion_point() -> Tensor:
    """Return the logarithm of k in 200 intervals."""
    return _drawn(200, seed=77, scale=0.1)


_SAMPLES = _drawn(50, 24, seed=78)


def normal_density(factor: Tensor) -> Tensor:
    """Return the logarithm of a normal distribution's density, by a factor of its covariance."""
    covariance = factor @ factor.mT + torch.eye(len(factor), dtype=factor.dtype)
    mean = torch.zeros_like(factor[0])
    distribution = torch.distributions.MultivariateNormal(mean, covariance, validate_args=False)
    return distribution.log_prob(_SAMPLES).sum()


def normal_density_point() -> Tensor:
    """Return a factor of a covariance of 24 variables."""
    return _drawn(24, 24, seed=79, scale=0.3)


OPERATIONS = {
    "recurrent": "jacobian",
    "integrator": "jacobian",
    "spectral": "jacobian",
    "marginal_likelihood": "hessian",
    "convolutional_loss": "hessian",
    "attention": "jacobian",
    "residual": "jacobian",
    "segmentation": "jacobian",
    "neighbour_energy": "hessian",
    "eigenvalues": "jacobian",
    "graph_network": "jacobian",
    "word_classes": "jacobian",
    "diffusion": "jacobian",
    "normal_density": "hessian",
}
"""The operation by which each function is differentiated."""
