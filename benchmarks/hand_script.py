"""A derivative matrix as a script of torch and h5py computes it, in a process of its own.

    python benchmarks/hand_script.py <module>:<function> <operation> <way> <chunk size> <path>
    python benchmarks/hand_script.py <module>:<function> <operation> tune <seconds>

The first writes the file, and returns when it is on the disk. The second times chunks of each way
and size, and prints those of the fastest. A way is ``vjp`` or ``jvp`` under vmap, ``linearize``, or
``retained`` (vmap over a graph that is evaluated once).
"""

from __future__ import annotations

import importlib
import math
import os
import sys
import time
from collections.abc import Callable

import h5py
import torch
from torch import Tensor

SIZES = (4, 16, 64, 256, 1024)
Function = Callable[[Tensor], Tensor]
Lines = Callable[[int, int], Tensor]


def ways(*, is_hessian: bool) -> dict[str, str]:
    """Return the axis of the lines that each way computes."""
    forward = "rows" if is_hessian else "columns"
    return {"vjp": "rows", "retained": "rows", "jvp": forward, "linearize": forward}


def prepared(function: Function, x: Tensor, way: str, *, is_hessian: bool) -> Lines:
    """Return the function that computes the rows or columns start, ..., stop - 1."""
    flat = x.reshape(-1)

    def values(vector: Tensor) -> Tensor:
        return function(vector.reshape(x.shape)).reshape(-1)

    target = torch.func.grad(lambda vector: values(vector)[0]) if is_hessian else values

    def basis(size: int, start: int, stop: int) -> Tensor:
        vectors = torch.zeros(stop - start, size)
        vectors[:, start:stop].fill_diagonal_(1)
        return vectors

    if way == "retained":
        leaf = flat.clone().requires_grad_()
        y = values(leaf)
        if is_hessian:
            (y,) = torch.autograd.grad(y, leaf, torch.ones_like(y), create_graph=True)
        return lambda start, stop: torch.autograd.grad(
            y, leaf, basis(len(y), start, stop), retain_graph=True, is_grads_batched=True
        )[0]
    if way == "vjp":
        y, pull = torch.func.vjp(target, flat)[:2]
        rows = torch.func.vmap(lambda u: pull(u)[0])
        return lambda start, stop: rows(basis(len(y), start, stop))
    if way == "linearize":
        push = torch.func.vmap(torch.func.linearize(target, flat)[1])
    else:
        push = torch.func.vmap(lambda t: torch.func.jvp(target, (flat,), (t,))[1])
    return lambda start, stop: push(basis(len(flat), start, stop))


def write(function: Function, x: Tensor, operation: str, way: str, chunk: int, path: str) -> None:
    """Write the matrix chunk by chunk, and bring it to the disk."""
    is_hessian = operation == "hessian"
    lines = prepared(function, x, way, is_hessian=is_hessian)
    is_by_rows = ways(is_hessian=is_hessian)[way] == "rows"
    with torch.no_grad():
        shape = (x.numel() if is_hessian else function(x).numel(), x.numel())
    # Columns of a contiguous dataset would be written an entry at a time.
    tile = None if is_by_rows else (min(shape[0], 1024), min(chunk, shape[1]))
    count = shape[0] if is_by_rows else shape[1]
    with h5py.File(path, "w") as file:
        matrix = file.create_dataset("matrix", shape, "f4", chunks=tile)
        for start in range(0, count, chunk):
            stop = min(start + chunk, count)
            values = lines(start, stop).detach().numpy()
            if is_by_rows:
                matrix[start:stop] = values
            else:
                matrix[:, start:stop] = values.T
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def tuned(function: Function, x: Tensor, operation: str, seconds: float) -> str:
    """Return the fastest way and chunk size, and the seconds that its chunks take."""
    is_hessian = operation == "hessian"
    with torch.no_grad():
        outputs = x.numel() if is_hessian else function(x).numel()
    found: dict[str, float] = {}
    for way, axis in ways(is_hessian=is_hessian).items():
        count = outputs if axis == "rows" else x.numel()
        try:
            began = time.process_time()
            lines = prepared(function, x, way, is_hessian=is_hessian)
            opening, line = time.process_time() - began, 0.0
            for chunk in sorted({min(each, count) for each in SIZES}):
                # What is far behind, or takes long, is not tried in larger chunks.
                behind = min(found.values(), default=math.inf) < line * count / 5
                if chunk * line > seconds or behind:
                    break
                samples = []
                while len(samples) < 2 or (sum(samples) < seconds / 4 and len(samples) < 5):
                    began = time.process_time()
                    lines(0, chunk)
                    samples.append(time.process_time() - began)
                    if samples[-1] > seconds:
                        break
                line = min(samples) / chunk
                found[f"{way} {chunk}"] = opening + line * count
        except (RuntimeError, NotImplementedError) as error:
            print(f"{way}: {error}"[:200], file=sys.stderr)
    best = min(found, key=found.__getitem__)
    return f"{best} {found[best]:.2f}"


def main() -> None:
    """Write a file, or tune."""
    place, operation, way, *others = sys.argv[1:]
    module, name = place.split(":")
    chosen = importlib.import_module(module)
    function, x = getattr(chosen, name), getattr(chosen, f"{name}_point")()
    if way == "tune":
        print(tuned(function, x, operation, float(others[0])))
    else:
        write(function, x, operation, way, int(others[0]), others[1])


if __name__ == "__main__":
    main()
