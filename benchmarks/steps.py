"""Measure what the captured engine takes beside the operators of a long program.

    python benchmarks/steps.py [--steps 2000] [--lines 64]

The function shifts and multiplies a vector again and again. The time of a chunk, less that of the
operators of its program called one after the other with the same arguments, is divided by the
number of steps; it has to be below 15 µs. Beside it is the time of the plain engine, which calls
the vmapped graph of autograd. Processor time of one thread, medians of 7, interleaved.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import autodiff_core

MOST_MICROSECONDS = 15.0
"""The largest time of a step beside its operators."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lines", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    repetitions, lines = options.steps // 2, options.lines
    factors = [torch.rand(lines) + 0.5 for _ in range(repetitions)]

    def function(x: Tensor) -> Tensor:
        for factor in factors:
            x = x.roll(1) * factor
        return x

    def operators() -> None:
        data = torch.eye(lines)
        for factor in reversed(factors):
            data = torch.roll(torch.mul(data, factor), -1, 1)

    captured, plain = chunk(function, lines, "captured"), chunk(function, lines, "plain")
    ours, alone, vmapped = medians(captured, operators, plain)
    beside = 1e6 * (ours - alone) / options.steps
    print(f"{options.steps} steps: {beside:.1f} µs a step beside")
    print(f"operators of {1e6 * alone / options.steps:.1f} µs; in all {1e3 * ours:.1f} ms,")
    print(f"and {1e3 * vmapped:.1f} ms by the plain engine")
    if beside > MOST_MICROSECONDS:
        raise SystemExit(f"more than {MOST_MICROSECONDS:.0f} µs a step")


def chunk(function: Callable[[Tensor], Tensor], lines: int, engine: str) -> Callable[[], object]:
    """Return a function that computes all lines at once by an engine."""
    stream = autodiff_core.blocks(
        function,
        torch.rand(lines),
        operation="jacobian",
        strategy="vectorize",
        engine=engine,
        chunk_size=lines,
    )
    stream.block(0, lines)
    if stream.engine != engine:
        raise SystemExit(f"the {stream.engine} engine was used ({stream.engine_refusal})")
    return lambda: stream.block(0, lines)


def medians(*runs: Callable[[], object]) -> list[float]:
    """Return the median processor time of each of several interleaved runs, in seconds."""
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(7):
        for run, found in zip(runs, seconds, strict=True):
            started = time.thread_time()
            run()
            found.append(time.thread_time() - started)
    return [statistics.median(found) for found in seconds]


if __name__ == "__main__":
    main()
