"""What `jobs.compute` costs: beside blocks written by plain h5py, and for a tiny job.

    python benchmarks/calls.py           # a job of about ten seconds, five repetitions
    python benchmarks/calls.py --small   # a short one

It prints medians of a Jacobian by `autodiff_core.blocks` and h5py alone, of the same matrix by a
call, and their ratio: of a network, whose weights take 740 MB, and of a reaction with diffusion,
which has none and more rows. Then come those of a call for the Hessian of an energy of 27 points in
three dimensions: the first, another one of the same kind, and one that is finished already. Each
figure is the time of the clock, and beside it the processor time of the process, which other
programs hardly disturb.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import torch
from torch import Tensor

import jobs
from autodiff_core import Block, blocks


def energy(positions: Tensor) -> Tensor:
    """Return the energy of a chain of springs."""
    bonds = positions[1:] - positions[:-1]
    return ((bonds.norm(dim=1) - 1) ** 2).sum()


def network(size: int) -> Callable[[Tensor], Tensor]:
    """Return a function of `size` inputs and outputs that takes time."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(16, size, size, dtype=torch.float64, generator=generator) / size**0.5

    def function(x: Tensor) -> Tensor:
        for weight in weights:
            x = torch.tanh(weight @ x)
        return x

    return function


def reaction(side: int) -> Callable[[Tensor], Tensor]:
    """Return ten steps of the Brusselator on a periodic grid of `side` by `side` points."""

    def laplacian(u: Tensor) -> Tensor:
        shifted = (u.roll(step, axis) for step in (1, -1) for axis in (0, 1))
        return sum(shifted, -4 * u)

    def function(x: Tensor) -> Tensor:
        u, v = x.reshape(2, side, side)
        for _ in range(10):
            rate = u * u * v
            change = 1 - 4 * u + rate + 0.5 * laplacian(u), 3 * u - rate + 0.5 * laplacian(v)
            u, v = u + 0.01 * change[0], v + 0.01 * change[1]
        return torch.stack([u, v]).reshape(-1)

    return function


def _blocks(function: Callable[[Tensor], Tensor], x: Tensor, chunk: int) -> Iterable[Block]:
    return blocks(function, x, operation="jacobian", strategy="vectorize", chunk_size=chunk)


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    """Return the time of one piece of work: of the clock, and of the processor."""
    started, computed = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - computed


def medians(times: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """Return the median times of the clock and of the processor."""
    clock, processor = zip(*times, strict=True)
    return statistics.median(clock), statistics.median(processor)


def text(times: tuple[float, float]) -> str:
    """Return the two times in words."""
    return f"{times[0]:.3g} s ({times[1]:.3g} s of the processor)"


def compare(name: str, function: Callable[[Tensor], Tensor], x: Tensor, runs: Path) -> None:
    """Measure a Jacobian by blocks and h5py, and by a call; print the medians."""
    chunk, size = 64, x.numel()

    def alone() -> None:
        with h5py.File(runs / "alone.h5", "w") as file:
            matrix = file.create_dataset("jacobian", (size, size), "f8")
            for block in _blocks(function, x, chunk):
                matrix[block.start : block.stop] = block.values.numpy()

    def by_call(verify: str) -> None:
        jobs.compute(
            *("jacobian", function, x),
            strategy="vectorize",
            chunk_size=chunk,
            verify=verify,
            runs=runs,
            overwrite=True,
            progress="quiet",
        ).close()

    works = (alone, lambda: by_call("off"), lambda: by_call("probe"))
    rounds = [[seconds(work) for work in works] for _ in range(5)]
    plain, *calls = (medians(each) for each in zip(*rounds, strict=True))
    print(f"{name}: blocks and h5py {text(plain)}")
    for how, call in zip(("without verification", "verified"), calls, strict=True):
        more = [f"{100 * (b / a - 1):.1f} %" for a, b in zip(plain, call, strict=True)]
        print(f"  jobs.compute, {how}: {text(call)}, {more[0]} more ({more[1]} of the processor)")


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="a short job")
    small = parser.parse_args().small
    size, side = (300, 12) if small else (2400, 64)
    cases = {
        "network": (network(size), torch.randn(size, dtype=torch.float64)),
        "reaction": (reaction(side), torch.rand(2 * side * side, dtype=torch.float64)),
    }
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        for name, (function, x) in cases.items():
            compare(name, function, x, runs)

        def tiny(seed: int) -> None:
            point = torch.randn(27, 3, generator=torch.Generator().manual_seed(seed))
            jobs.compute("hessian", energy, point, runs=runs, progress="quiet").close()

        first = seconds(lambda: tiny(0))
        others = medians(seconds(lambda n=n: tiny(n)) for n in range(1, 12))
        again = medians(seconds(lambda: tiny(0)) for _ in range(11))
        print(f"tiny Hessian: first {text(first)}, another {text(others)}, finished {text(again)}")


if __name__ == "__main__":
    main()
