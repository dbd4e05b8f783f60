# JAX is a peer in these benchmarks, and installed for them only.
# pyright: reportMissingImports=false
"""The functions of the module `users`, written in jax.numpy with the same constants."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import torch
import users

Array = Any


def given(tensor: torch.Tensor) -> Array:
    """Return a tensor as an array of JAX."""
    return jnp.asarray(tensor.detach().cpu().numpy())


def recurrent(x: Array) -> Array:
    """Return the outputs of all steps of a recurrent network."""
    cells = users._CELLS
    by_input, by_state, own_bias, bias = (given(part.data) for part in cells.parameters())
    projected = x @ by_input.T + own_bias

    def step(state: Array, inputs: Array) -> tuple[Array, Array]:
        reset, update, new = jnp.split(inputs, 3)
        own_reset, own_update, own_new = jnp.split(state @ by_state.T + bias, 3)
        kept = jax.nn.sigmoid(update + own_update)
        candidate = jnp.tanh(new + jax.nn.sigmoid(reset + own_reset) * own_new)
        state = (1 - kept) * candidate + kept * state
        return state, state

    return jax.lax.scan(step, jnp.zeros(by_state.shape[1]), projected)[1]


def _lorenz96(x: Array) -> Array:
    return (jnp.roll(x, -1) - jnp.roll(x, 2)) * jnp.roll(x, 1) - x + 8.0


def integrator(x: Array) -> Array:
    """Return the state after 40 Runge-Kutta steps of the Lorenz-96 model."""
    step = 0.01

    def advance(x: Array, _: None) -> tuple[Array, None]:
        k1 = _lorenz96(x)
        k2 = _lorenz96(x + step / 2 * k1)
        k3 = _lorenz96(x + step / 2 * k2)
        k4 = _lorenz96(x + step * k3)
        return x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return jax.lax.scan(advance, x, length=40)[0]


def spectral(u: Array) -> Array:
    """Return the solution of Burgers' equation after 10 pseudo-spectral steps."""
    modes = given(users._MODES)
    for _ in range(10):
        transformed = jnp.fft.rfft(u)
        slope = jnp.fft.irfft(1j * modes * transformed, n=1024)
        transformed = (transformed - 1e-3 * jnp.fft.rfft(u * slope)) / (1 + 1e-5 * modes**2)
        u = jnp.fft.irfft(transformed, n=1024)
    return u


def marginal_likelihood(places: Array) -> Array:
    """Return the negative log marginal likelihood of a Gaussian process."""
    targets = given(users._TARGETS)
    squared = jnp.square(places[:, None] - places[None]).sum(-1)
    covariance = jnp.exp(-0.5 * squared) + 0.5 * jnp.eye(len(places))
    factor = jnp.linalg.cholesky(covariance)
    weights = jax.scipy.linalg.cho_solve((factor, True), targets)
    return 0.5 * (targets @ weights) + jnp.log(jnp.diagonal(factor)).sum()


def _pooled(x: Array) -> Array:
    window = (1, 1, 2, 2)
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, window, "VALID") / 4


def _convolved(x: Array, weight: Array) -> Array:
    return jax.lax.conv(x, weight, (1, 1), "SAME")


def convolutional_loss(parameters: Array) -> Array:
    """Return the loss of a convolutional network."""
    ends = torch.tensor(users._SIZES).cumsum(0).tolist()[:-1]
    parts = zip(jnp.split(parameters, ends), users._SHAPES, strict=True)
    a, ab, b, bb, c, cb = (part.reshape(shape) for part, shape in parts)
    x = jnp.tanh(_pooled(_convolved(given(users._IMAGES), a) + ab[:, None, None]))
    x = jnp.tanh(_pooled(_convolved(x, b) + bb[:, None, None]))
    scores = jax.nn.log_softmax(x.reshape(len(x), -1) @ c.T + cb)
    return -scores[jnp.arange(len(x)), given(users._LABELS)].mean()


def attention(x: Array) -> Array:
    """Return the tokens after two layers of causal attention with four heads."""
    for weight in users._PROJECTIONS:
        centred = x - x.mean(-1, keepdims=True)
        unit = centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)
        qkv = (unit @ given(weight).T).reshape(len(x), 3, 4, 24)
        # Its arrays are tokens x heads x width.
        attended = jax.nn.dot_product_attention(*qkv.swapaxes(0, 1), is_causal=True)
        x = x + jax.nn.gelu(attended.reshape(x.shape), approximate=False)
    return x


def residual(parameters: Array) -> Array:
    """Return the residuals of u'' + u = 0 for a network u, with the derivatives inside."""
    first, second, last = jnp.split(parameters, [48, 48 + 48 * 48])

    def u(t: Array) -> Array:
        hidden = jnp.tanh(t * first)
        return jnp.tanh(hidden @ second.reshape(48, 48)) @ last

    second_derivative = jax.grad(jax.grad(u))
    return jax.vmap(lambda t: second_derivative(t) + u(t))(given(users._TIMES))


def segmentation(image: Array) -> Array:
    """Return the output of a network with pooling and a skip connection, for each pixel."""
    first, last = map(given, users._KERNELS)
    hidden = jnp.tanh(_convolved(image[None, None], first))
    coarse = _pooled(hidden).repeat(2, axis=2).repeat(2, axis=3)
    return _convolved(jax.nn.sigmoid(hidden + coarse), last)[0, 0]


def _number_of_pairs() -> int:
    positions = users.neighbour_energy_point()
    return int((torch.cdist(positions, positions) < 2.0).triu(1).sum())


_PAIRS = _number_of_pairs()


def neighbour_energy(positions: Array) -> Array:
    """Return the energy of the pairs within a cutoff, whose number JAX must know beforehand."""
    fixed = jax.lax.stop_gradient(positions)
    near = jnp.square(fixed[:, None] - fixed[None]).sum(-1) < 4.0
    first, second = jnp.nonzero(jnp.triu(near, 1), size=_PAIRS)
    squared = jnp.square(positions[first] - positions[second]).sum(-1)
    pairs = jnp.exp(-squared) * (4 - squared) ** 2
    density = jnp.zeros(len(positions)).at[first].add(pairs).at[second].add(pairs)
    return pairs.sum() - jnp.sqrt(density + 1).sum()


def eigenvalues(matrix: Array) -> Array:
    """Return the eigenvalues of the symmetric part of a matrix."""
    return jnp.linalg.eigvalsh(matrix + matrix.T)


def graph_network(nodes: Array) -> Array:
    """Return the nodes of a graph after two rounds of messages along its edges."""
    sender, receiver = given(users._EDGES)
    for weight in users._LAYERS:
        messages = jnp.tanh((nodes[sender] + nodes[receiver]) @ given(weight))
        nodes = nodes + jnp.zeros_like(nodes).at[receiver].add(messages)
    return nodes


def word_classes(words: Array) -> Array:
    """Return the scores of 64 sentences, from the means of the embeddings of their words."""
    return jnp.tanh(words[given(users._WORDS)].mean(1)) @ given(users._CLASSES)


def diffusion(logarithms: Array) -> Array:
    """Return the solution of -(k u')' = f on an interval, by the logarithm of k."""
    k = jnp.exp(logarithms)
    matrix = jnp.diag(k[:-1] + k[1:]) - jnp.diag(k[1:-1], 1) - jnp.diag(k[1:-1], -1)
    return jnp.linalg.solve(matrix, given(users._SOURCE))


def normal_density(factor: Array) -> Array:
    """Return the logarithm of a normal distribution's density, by a factor of its covariance."""
    cholesky = jnp.linalg.cholesky(factor @ factor.T + jnp.eye(len(factor)))
    samples = given(users._SAMPLES)
    scaled = jax.scipy.linalg.solve_triangular(cholesky, samples.T, lower=True)
    constant = len(factor) * jnp.log(2 * jnp.pi) / 2 + jnp.log(jnp.diagonal(cholesky)).sum()
    return -jnp.square(scaled).sum() / 2 - len(samples) * constant
