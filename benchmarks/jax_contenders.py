# JAX is a peer in these benchmarks, and installed for them only.
# pyright: reportMissingImports=false
"""Jitted JAX: the same functions written in jax.numpy, with every chunk size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jax_users
import numpy as np
from contenders import Contender, Lines, chunk_sizes, gives_rows
from jax_users import given as _given
from workloads import Instance, UserWorkload

Array = Any


def _perceptron(x: Array, parameters: Any) -> Array:
    *hidden, last = zip(parameters[::2], parameters[1::2], strict=True)
    for weight, bias in hidden:
        x = jnp.tanh(x @ weight.T + bias)
    return x @ last[0].T + last[1]


def _mlp(constants: dict[str, Any]) -> Callable[..., Array]:
    parameters = [_given(part) for part in constants["parameters"]]
    return lambda x: _perceptron(x, parameters)


def _mlp_parameters(constants: dict[str, Any]) -> Callable[..., Array]:
    data = _given(constants["data"])
    if "targets" not in constants:
        return lambda *parameters: _perceptron(data, parameters)
    targets = _given(constants["targets"])
    return lambda *parameters: jnp.square(_perceptron(data, parameters) - targets).mean()


def _pairwise_energy(constants: dict[str, Any]) -> Callable[..., Array]:
    first, second = _given(constants["first"]), _given(constants["second"])

    def energy(positions: Array) -> Array:
        difference = positions[first] - positions[second]
        inverse = (difference * difference).sum(-1) ** -3
        return 4 * (inverse * (inverse - 1)).sum()

    return energy


def _gp_residual(constants: dict[str, Any]) -> Callable[..., Array]:
    data, targets = _given(constants["data"]), _given(constants["targets"])
    values = _given(constants["inducing_values"])

    def kernel(a: Array, b: Array, log_lengthscale: Array) -> Array:
        scaled = (a[:, None] - b[None, :]) * jnp.exp(-log_lengthscale)
        return jnp.exp(-0.5 * scaled * scaled)

    def residuals(points: Array, log_lengthscale: Array) -> Array:
        covariance = kernel(points, points, log_lengthscale) + 1e-6 * jnp.eye(len(points))
        factor = jax.scipy.linalg.cho_factor(covariance, lower=True)
        weights = jax.scipy.linalg.cho_solve(factor, values)
        return targets - kernel(data, points, log_lengthscale) @ weights

    return residuals


def _rotation_chain(constants: dict[str, Any]) -> Callable[..., Array]:
    generators, centres = _given(constants["generators"]), _given(constants["centres"])
    rest, link = _given(constants["rest"]), _given(constants["link"])
    squares = generators @ generators

    def positions(angles: Array) -> Array:
        sine, cosine = jnp.sin(angles)[:, None, None], jnp.cos(angles)[:, None, None]
        turns = jnp.eye(3) + sine * generators + (1 - cosine) * squares
        rotation, translation = jnp.eye(3), jnp.zeros(3)
        rotations, translations = [], []
        for turn, centre in zip(turns, centres, strict=True):
            translation = translation + rotation @ (centre - turn @ centre)
            rotation = rotation @ turn
            rotations.append(rotation)
            translations.append(translation)
        moved = (jnp.stack(rotations)[link] @ rest[:, :, None])[..., 0]
        return moved + jnp.stack(translations)[link]

    return positions


def _brusselator(constants: dict[str, Any]) -> Callable[..., Array]:
    diffusion = constants["diffusion"]

    def rates(concentrations: Array) -> Array:
        u, v = concentrations
        reaction = jnp.stack((1.0 + u * u * v - 4.4 * u, 3.4 * u - u * u * v))
        shifted = [jnp.roll(concentrations, s, d) for d in (-2, -1) for s in (-1, 1)]
        return reaction + diffusion * (sum(shifted) - 4 * concentrations)

    return rates


def _transformer_block(constants: dict[str, Any]) -> Callable[..., Array]:
    heads = constants["heads"]
    weights = {name: _given(part) for name, part in constants["weights"].items()}

    def normalize(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        unit = centred / jnp.sqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
        return unit * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def project(x: Array, prefix: str) -> Array:
        return x @ weights[f"{prefix}weight"].T + weights[f"{prefix}bias"]

    def block(tokens: Array) -> Array:
        n, width = tokens.shape
        projected = project(normalize(tokens, "norm1"), "self_attn.in_proj_")
        query, key, value = projected.reshape(n, 3, heads, width // heads).transpose(1, 2, 0, 3)
        scores = query @ key.swapaxes(-2, -1) / (width // heads) ** 0.5
        attended = jax.nn.softmax(scores, axis=-1) @ value
        attended = attended.swapaxes(0, 1).reshape(n, width)
        hidden = tokens + project(attended, "self_attn.out_proj.")
        inner = jax.nn.gelu(project(normalize(hidden, "norm2"), "linear1."), approximate=False)
        return hidden + project(inner, "linear2.")

    return block


_BUILDERS = {
    "mlp": _mlp,
    "mlp_parameters": _mlp_parameters,
    "pairwise_energy": _pairwise_energy,
    "gp_residual": _gp_residual,
    "rotation_chain": _rotation_chain,
    "brusselator": _brusselator,
    "transformer_block": _transformer_block,
}


def jax_contenders(instance: Instance) -> Iterator[Contender]:
    """Yield maps that are linearized once and applied in jitted chunks."""
    shapes = [tuple(part.shape) for part in instance.point]
    ends = np.cumsum([part.numel() for part in instance.point])[:-1]
    if isinstance(instance.workload, UserWorkload):
        function: Any = getattr(jax_users, instance.workload.problem)
    else:
        function = _BUILDERS[instance.workload.problem](instance.constants)

    def flat(x: Array) -> Array:
        parts = [p.reshape(s) for p, s in zip(jnp.split(x, ends), shapes, strict=True)]
        return function(*parts).reshape(-1)

    target: Any = jax.grad(lambda x: flat(x)[0]) if instance.is_second_order else flat
    point = jnp.concatenate([_given(part).reshape(-1) for part in instance.point])
    outputs = jax.eval_shape(target, point).shape[0]
    given = instance.drawn_vectors()
    vectors = None if given is None else _given(given)

    def lines_of(linear: Any, size: int, chunk: int) -> Lines:
        # The linear map is a pytree of its residuals: an argument, not a constant of the program.
        @jax.jit
        def compute(linear: Any, start: Array) -> Array:
            if vectors is None:
                basis = jax.nn.one_hot(start + jnp.arange(chunk), size, dtype=jnp.float32)
            else:
                basis = jax.lax.dynamic_slice_in_dim(vectors, start, chunk)
            return jax.vmap(linear)(basis)

        def lines(start: int, stop: int) -> Array:
            # A short last chunk is computed at full size, because jit fixes the shape.
            result = compute(linear, max(0, stop - chunk) if vectors is not None else start)
            return jax.block_until_ready(result)

        return lines

    def pulling(chunk: int) -> Lines:
        pull = jax.jit(lambda x: jax.vjp(target, x)[1])(point)
        return lines_of(jax.tree_util.Partial(lambda p, u: p(u)[0], pull), outputs, chunk)

    def pushing(chunk: int) -> Lines:
        push = jax.jit(lambda x: jax.linearize(target, x)[1])(point)
        return lines_of(push, len(point), chunk)

    for name, prepare, axis in (("vjp", pulling, "rows"), ("linearize", pushing, "columns")):
        if instance.workload.operation == "vjp" and axis == "columns":
            continue
        shown = "rows" if gives_rows(instance) else axis
        lines = instance.rows if shown == "rows" else instance.columns
        for size in chunk_sizes(lines):
            yield Contender(
                "JAX", f"{name} {size}", shown, lines, size, lambda p=prepare, s=size: p(s)
            )
