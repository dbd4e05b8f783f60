"""A Gauss-Newton matrix by blocks of rows, and by curvlinops' products with unit vectors.

    python benchmarks/curvature.py --samples 50000 --memory 2GiB --columns 16

The network has 10,014 parameters, the loss is cross entropy over mini-batches of 500 samples. A job
is planned within the memory: its plan chooses strategy and chunk size by measurements of single
chunks over a share of the data, and predicts the time of all rows. curvlinops multiplies unit
vectors, one by one and all at once, over a share of the mini-batches too. Both times are those of
the whole matrix over all samples, extrapolated from what was measured in one run; the ratio is what
counts. With `--whole` the job is computed and verified too, and its peak of resident memory is
printed. It needs curvlinops-for-pytorch.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from typing import Any

import torch
from torch import nn

import jobs
from jobs.machine.process_memory import resident_memory

INPUTS, WIDTH, CLASSES, BATCH = 50, 164, 10, 500


def main() -> None:
    """Measure both and print the times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--memory", default="2GiB")
    parser.add_argument("--columns", type=int, default=16, help="unit vectors of curvlinops")
    parser.add_argument("--share", type=int, default=20, help="of so many mini-batches one")
    parser.add_argument("--whole", action="store_true", help="compute the whole matrix")
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    network = nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES))
    x = torch.randn(given.samples, INPUTS)
    label = torch.randint(0, CLASSES, (given.samples,))
    count = sum(each.numel() for each in network.parameters())
    job = {
        "wrt": "params",
        "loss": {"kind": "cross_entropy", "batch_size": BATCH},
        "memory": given.memory,
    }
    data = {"input": x, "label": label}
    ours = _planned(network, data, job)
    if given.whole:
        ours = _computed(network, data, job)
    theirs = _products(network, x, label, given.columns, given.share)
    print(f"{count} parameters, {given.samples} samples, {torch.get_num_threads()} threads")
    print(f"blocks of rows   {ours:8.0f} s for all rows")
    for name, seconds in theirs.items():
        whole = seconds * count
        print(f"{name:16s} {whole:8.0f} s for all columns, {whole / ours:.1f} times as long")


def _planned(network: nn.Module, data: dict[str, torch.Tensor], job: dict[str, Any]) -> float:
    """Return the seconds that the plan of a job predicts."""
    with tempfile.TemporaryDirectory() as runs:
        planned = jobs.plan("ggn", network, data, runs=runs, **job)
    print(planned)
    print(f"resident memory after planning: {resident_memory() / 2**20:.0f} MiB")
    assert planned.plan is not None
    return planned.plan.seconds


def _computed(network: nn.Module, data: dict[str, torch.Tensor], job: dict[str, Any]) -> float:
    """Return the processor seconds of the whole job, for each thread."""
    with tempfile.TemporaryDirectory() as runs:
        clock, began = time.perf_counter(), time.process_time()
        with jobs.compute("ggn", network, data, runs=runs, progress="quiet", **job) as result:
            seconds = (time.process_time() - began) / torch.get_num_threads()
            clock = time.perf_counter() - clock
            print(result)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        f"whole job: {clock:.0f} s, {seconds:.0f} s of the processor, peak {peak:.0f} MiB resident"
    )
    return seconds


def _products(
    network: nn.Module, x: torch.Tensor, label: torch.Tensor, columns: int, share: int
) -> dict[str, float]:
    """Return the seconds of a product with one unit vector over all samples, by name."""
    import curvlinops  # pyright: ignore[reportMissingImports]

    batches = [(x[i : i + BATCH], label[i : i + BATCH]) for i in range(0, len(x), BATCH)]
    measured = batches[: max(1, len(batches) // share)]
    parameters: Any = list(network.parameters())
    matrix = curvlinops.GGNLinearOperator(
        network, nn.CrossEntropyLoss(), parameters, measured, check_deterministic=False
    )
    unit = torch.eye(matrix.shape[1], columns)
    found = {}
    for name, vectors in (("one by one", unit.split(1, dim=1)), ("at once", [unit])):
        _ = matrix @ vectors[0]
        began = time.process_time()
        for each in vectors:
            _ = matrix @ each
        # As in the plan, time in which other programs have the processor does not count.
        seconds = (time.process_time() - began) / torch.get_num_threads() / columns
        found[name] = seconds * len(batches) / len(measured)
    return found


if __name__ == "__main__":
    main()
