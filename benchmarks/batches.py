"""Measure memory and time of a loss's Hessian over data in batches, and over all data at once.

    python benchmarks/batches.py --samples 1000000 --batch-size 10000

Each job runs in a separate process; a job over few samples shows what the program itself needs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np

FEATURES = 64
SAMPLES_AT_ONCE = 10_000
MODULE = f"""
from torch import nn

class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear({FEATURES}, 1)

    def forward(self, x):
        return self.linear(x).squeeze(1)
"""
JOB = (
    *("op=hessian", "strategy=vectorize", "function=python", "function.target=./module.py:Linear"),
    *("wrt=params", "loss=mse", "progress=json", "overwrite=true"),
)


def write_data(path: Path, samples: int) -> None:
    """Write random data and labels, in pieces."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        x = file.create_dataset("x", (samples, FEATURES), dtype="f8")
        label = file.create_dataset("label", (samples,), dtype="f8")
        for start in range(0, samples, SAMPLES_AT_ONCE):
            stop = min(start + SAMPLES_AT_ONCE, samples)
            x[start:stop] = random.standard_normal((stop - start, FEATURES))
            label[start:stop] = random.standard_normal(stop - start)


def run(folder: Path, data: str, batch_size: str) -> dict[str, str]:
    """Run a job and return the figures that it prints."""
    files = ("inputs=hdf5", f"inputs.path={data}", "inputs.datasets=[/x,/label]")
    command = [sys.executable, "-m", "jobs.run", *JOB, *files, f"loss.batch_size={batch_size}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["facts"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--batch-size", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "module.py").write_text(MODULE)
        write_data(folder / "few.h5", 1000)
        write_data(folder / "all.h5", given.samples)
        print(f"{given.samples} samples, {given.samples * FEATURES * 8 / 1e6:.0f} MB")
        for label, data, batch_size in (
            ("1000 samples", "few.h5", "null"),
            (f"batches of {given.batch_size}", "all.h5", str(given.batch_size)),
            ("all at once", "all.h5", "null"),
        ):
            facts = run(folder, data, batch_size)
            print(f"{label:<20} {facts['time']:<24} {facts['memory']}")


if __name__ == "__main__":
    main()
