"""Measure what the captured engine takes beside the operators of a long program.

    python benchmarks/overhead.py [--steps 2000] [--lines 64]

The function shifts and multiplies a small vector again and again. The time of a chunk, less that
of the operators of its program called one after the other, is divided by the number of steps.
Processor time of one thread, medians of 7.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import autodiff_core


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lines", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    repetitions, lines = options.steps // 2, options.lines
    factors = [torch.rand(lines) for _ in range(repetitions)]

    def function(x: Tensor) -> Tensor:
        for factor in factors:
            x = x.roll(1) * factor
        return x

    point = torch.rand(lines)
    stream = autodiff_core.blocks(
        function,
        point,
        operation="jacobian",
        strategy="vectorize",
        engine="captured",
        chunk_size=lines,
    )
    stream.block(0, lines)
    assert stream.engine == "captured", stream.engine_refusal

    def operators() -> None:
        data = torch.eye(lines)
        for factor in factors:
            data = torch.roll(torch.mul(data, factor), -1, 1)

    chunk, alone = median(lambda: stream.block(0, lines)), median(operators)
    print(f"{options.steps} steps: {1e6 * (chunk - alone) / options.steps:.1f} µs a step beside")
    print(f"operators of {1e6 * alone / options.steps:.1f} µs")


def median(run: Callable[[], object]) -> float:
    """Return the median processor time of several runs, in seconds."""
    seconds = []
    for _ in range(7):
        started = time.thread_time()
        run()
        seconds.append(time.thread_time() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
