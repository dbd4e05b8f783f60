"""What `jobs.compute` costs: beside blocks written by plain h5py, and for a tiny job.

    python benchmarks/calls.py           # a job of about ten seconds, five repetitions
    python benchmarks/calls.py --small   # a short one

It prints the median time of a Jacobian by `autodiff_core.blocks` and h5py alone, of the same matrix
by a call, their ratio, and of a call for the Hessian of an energy of nine points in three
dimensions: the first, another one of the same kind, and one that is finished already.
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
    weights = torch.randn(24, size, size, dtype=torch.float64, generator=generator) / size**0.5

    def function(x: Tensor) -> Tensor:
        for weight in weights:
            x = torch.tanh(weight @ x)
        return x

    return function


def _blocks(function: Callable[[Tensor], Tensor], x: Tensor, chunk: int) -> Iterable[Block]:
    return blocks(function, x, operation="jacobian", strategy="vectorize", chunk_size=chunk)


def seconds(work: Callable[[], None]) -> float:
    """Return the time of one piece of work."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="a short job")
    size = 300 if parser.parse_args().small else 1800
    function, x = network(size), torch.randn(size, dtype=torch.float64)
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        chunk = 64

        def alone() -> None:
            with h5py.File(runs / "alone.h5", "w") as file:
                matrix = file.create_dataset("jacobian", (size, size), "f8")
                for block in _blocks(function, x, chunk):
                    matrix[block.start : block.stop] = block.values.numpy()

        def by_call() -> None:
            jobs.compute(
                *("jacobian", function, x),
                strategy="vectorize",
                chunk_size=chunk,
                runs=runs,
                overwrite=True,
                progress="quiet",
            ).close()

        def tiny(seed: int) -> None:
            point = torch.randn(9, 3, generator=torch.Generator().manual_seed(seed))
            jobs.compute("hessian", energy, point, runs=runs, progress="quiet").close()

        first = seconds(lambda: tiny(0))
        pairs = [(seconds(alone), seconds(by_call)) for _ in range(5)]
        plain, call = (statistics.median(each) for each in zip(*pairs, strict=True))
        print(f"blocks and h5py: {plain:.2f} s; jobs.compute: {call:.2f} s")
        print(f"overhead: {100 * (call / plain - 1):.1f} %")
        others = statistics.median(seconds(lambda n=n: tiny(n)) for n in range(1, 8))
        again = statistics.median(seconds(lambda: tiny(0)) for _ in range(7))
        print(f"tiny Hessian: first {first:.2f} s, another {others:.3f} s, finished {again:.3f} s")


if __name__ == "__main__":
    main()
