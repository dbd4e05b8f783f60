"""Compare sparse Jacobians and Hessians with asdex: colours, detection, first and later evaluation.

    python benchmarks/sparse.py
    python benchmarks/sparse.py --growth growth.png

Both compute in float64 on the same machine, alternating; the figures are medians. asdex evaluates
jitted, with compilation in the first evaluation, as its documentation advises.
"""

# The peer is installed by the extra `bench` only.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from autodiff_core.sparse import (
    SparseEvaluator,
    colour,
    detect_sparsity,
    sparse_hessian,
    sparse_jacobian,
)
from jobs.problems import load_builder


@dataclass(frozen=True)
class Workload:
    """A built-in problem, and the same function in JAX, where that has shapes that it knows."""

    operation: str
    options: dict[str, int]
    jax: Callable[[dict[str, Any]], Callable[[Any], Any]] | None


def _brusselator(constants: dict[str, Any]) -> Callable[[Any], Any]:
    import jax.numpy as jnp

    diffusion = constants["diffusion"]

    def rates(c: Any) -> Any:
        u, v = c[0], c[1]
        product = u * u * v
        reaction = jnp.stack((1 + product - 4.4 * u, 3.4 * u - product))
        around = sum(jnp.roll(c, shift, axis) for axis in (-2, -1) for shift in (-1, 1))
        return reaction + diffusion * (around - 4 * c)

    return rates


def _rosenbrock(constants: dict[str, Any]) -> Callable[[Any], Any]:
    return lambda x: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def _neighbour_energy(constants: dict[str, Any]) -> Callable[[Any], Any]:
    first, second, shift = (constants[name].numpy() for name in ("first", "second", "shift"))

    def energy(x: Any) -> Any:
        between = x[second] + shift - x[first]
        inverse = 1 / (between * between).sum(1) ** 3
        return (4 * (inverse * inverse - inverse)).sum()

    return energy


def _convolution_stack(constants: dict[str, Any]) -> Callable[[Any], Any]:
    import jax
    import jax.numpy as jnp

    weights, bias, combined = (
        jnp.asarray(constants[name].numpy()) for name in ("weights", "bias", "combined")
    )

    def convolved(image: Any, kernel: Any) -> Any:
        return jax.lax.conv(image, kernel, (1, 1), "SAME")

    def filtered(image: Any) -> Any:
        hidden = jnp.tanh(convolved(image[None, None], weights) + bias[:, None, None])
        return convolved(hidden, combined)[0, 0]

    return filtered


WORKLOADS = {
    "a brusselator": Workload("jacobian", {"n": 256}, _brusselator),
    "b rosenbrock": Workload("hessian", {"n": 200_000}, _rosenbrock),
    "c neighbour_energy": Workload("hessian", {"n": 21, "seed": 0}, _neighbour_energy),
    "d convolution_stack": Workload(
        "jacobian", {"n": 320, "channels": 4, "seed": 0}, _convolution_stack
    ),
    # Beside the workload c with as many atoms, which is given the list.
    "e neighbour_energy, listed inside": Workload("hessian", {"n": 8, "seed": 0}, None),
}


def _listing(energy: Any, edge: float) -> Callable[[Any], Any]:
    """Return the energy with a list of neighbours that is made from the positions."""

    def listed(x: torch.Tensor) -> torch.Tensor:
        between = x[:, None] - x
        image = -edge * torch.round(between.detach() / edge)
        is_near = (between.detach() + image).square().sum(2) < 1.4**2
        first, second = torch.nonzero(is_near.triu(1), as_tuple=True)
        return energy(x, first=second, second=first, shift=image[first, second])

    return listed


def build(name: str, workload: Workload, options: dict[str, int]) -> Any:
    problem = load_builder(name.split()[1].rstrip(","))(
        **options, dtype=torch.float64, device=torch.device("cpu")
    )
    function = problem.scalar if workload.operation == "hessian" else problem.function
    (point,) = problem.point.values()
    if "listed inside" in name:
        function = _listing(function, 2 ** (1 / 6) * 2**0.5 * options["n"])
    return function, point


def ours(
    function: Any, point: torch.Tensor, operation: str, repeat: int, *, with_compiler: bool = False
) -> dict[str, float]:
    evaluate = sparse_hessian if operation == "hessian" else sparse_jacobian
    started = time.perf_counter()
    pattern = detect_sparsity(function, point, operation=operation)
    detected = time.perf_counter()
    colouring = colour(pattern, symmetric=operation == "hessian")
    coloured = time.perf_counter()
    evaluate(function, point, sparsity=colouring)
    first = time.perf_counter()
    again = {}
    for compiled in (False, True) if with_compiler else (False,):
        known = SparseEvaluator(function, point, colouring, operation=operation, compile=compiled)
        known(point)
        again[known.engine] = _again(lambda known=known: known(point), repeat)
    return {
        "entries": pattern.entries,
        "colours": colouring.colours,
        "detection": detected - started,
        "to_the_first": first - started,
        "colouring": coloured - detected,
        "again": min(again.values()),
        **again,
    }


def theirs(shaped: Any, point: torch.Tensor, operation: str, repeat: int) -> dict[str, float]:
    import asdex
    import jax
    import jax.numpy as jnp

    # asdex indexes elements by the product of all dimensions in int32, in which flat inputs fit.
    x = jnp.asarray(point.numpy().reshape(-1))
    shape = tuple(point.shape)

    def function(flat: Any) -> Any:
        value = shaped(flat.reshape(shape))
        return value.reshape(-1) if operation == "jacobian" else value

    started = time.perf_counter()
    if operation == "hessian":
        sparsity = asdex.hessian_sparsity(function, x)
        detected = time.perf_counter()
        coloured = asdex.hessian_coloring_from_sparsity(sparsity)
        evaluate = jax.jit(asdex.hessian_from_coloring(function, coloured))
    else:
        sparsity = asdex.jacobian_sparsity(function, x)
        detected = time.perf_counter()
        coloured = asdex.jacobian_coloring_from_sparsity(sparsity)
        evaluate = jax.jit(asdex.jacobian_from_coloring(function, coloured))
    colouring = time.perf_counter()
    jax.block_until_ready(evaluate(x))
    first = time.perf_counter()
    again = _again(lambda: jax.block_until_ready(evaluate(x)), repeat)
    return {
        "entries": int(sparsity.nnz),
        "colours": int(coloured.num_colors),
        "detection": detected - started,
        "to_the_first": first - started,
        "colouring": colouring - detected,
        "again": again,
    }


def _again(work: Callable[[], Any], repeat: int) -> float:
    """Return the median seconds of at least `repeat` evaluations, and of at least a second."""
    seconds: list[float] = []
    while len(seconds) < repeat or sum(seconds) < 1:
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def compare(repeat: int, only: list[str] | None) -> dict[str, Any]:
    import jax

    jax.config.update("jax_enable_x64", True)
    figures: dict[str, Any] = {}
    table = Table("workload", "", "entries", "colours", "detection", "to the first", "again", "")
    for name, workload in WORKLOADS.items():
        if only and name.split()[0] not in only:
            continue
        function, point = build(name, workload, workload.options)
        # The kernels are compiled once, and cached on the disk.
        small, small_point = build(name, workload, workload.options | {"n": 3})
        ours(small, small_point, workload.operation, 1)
        in_jax = workload.jax and workload.jax(getattr(function, "keywords", {}))
        found: dict[str, list[dict[str, float]]] = {"ours": [], "asdex": []}
        for _ in range(repeat):
            found["ours"].append(ours(function, point, workload.operation, 5, with_compiler=True))
            if in_jax is None:
                continue
            try:
                found["asdex"].append(theirs(in_jax, point, workload.operation, 5))
            # A failure of the peer is a finding.
            except Exception as error:
                Console().print(f"asdex, {name}: {type(error).__name__}: {str(error)[:200]}")
        figures[name] = {
            side: {key: statistics.median(each[key] for each in rows) for key in rows[0]}
            for side, rows in found.items()
            if rows
        }
        for side, row in figures[name].items():
            table.add_row(
                name if side == "ours" else "",
                side,
                f"{row['entries']:,.0f}",
                f"{row['colours']:.0f}",
                f"{row['detection']:.3g} s",
                f"{row['to_the_first']:.3g} s",
                f"{row['again']:.3g} s",
                f"traced {row['traced']:.3g} s" if "traced" in row else "jitted",
            )
        if len(figures[name]) == 2:
            a, b = figures[name]["asdex"], figures[name]["ours"]
            ratios = [f"{a[key] / b[key]:.1f}" for key in ("detection", "to_the_first", "again")]
            table.add_row("", "ratio", "", "", *ratios)
    Console(width=140).print(table)
    return figures


def growth(target: Path) -> dict[str, list[tuple[float, ...]]]:
    """Plot the seconds of each stage against the number of entries."""
    from matplotlib.figure import Figure

    figures: dict[str, list[tuple[float, ...]]] = {}
    for name, sizes in {
        "a brusselator": (128, 256, 512, 1024),
        "b rosenbrock": (62_500, 250_000, 1_000_000),
        "d convolution_stack": (128, 256, 512),
    }.items():
        workload = WORKLOADS[name]
        # The first call imports and compiles.
        small, small_point = build(name, workload, workload.options | {"n": 8})
        ours(small, small_point, workload.operation, 1)
        for size in sizes:
            function, point = build(name, workload, workload.options | {"n": size})
            row = ours(function, point, workload.operation, 2)
            stages = (row["detection"], row["colouring"], row["again"])
            figures.setdefault(name, []).append((row["entries"], *stages))
            Console().print(name, size, [f"{value:.3g}" for value in figures[name][-1]])
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    for axes, (name, rows) in zip(figure.subplots(1, len(figures)), figures.items(), strict=True):
        entries, *stages = np.array(rows).T
        for label, seconds in zip(("detection", "colouring", "evaluation"), stages, strict=True):
            axes.loglog(entries, seconds, "o-", label=label)
        axes.loglog(entries, stages[-1][0] * entries / entries[0], "k:", label="linear")
        axes.set(title=name, xlabel="entries", ylabel="seconds")
        axes.legend(fontsize=8)
    figure.savefig(target, dpi=110)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="letters of workloads")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--growth", type=Path, help="only plot how the stages scale")
    options = parser.parse_args()
    figures = growth(options.growth) if options.growth else compare(options.repeat, options.only)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
