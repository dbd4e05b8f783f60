"""Calls with several devices: objects travel to processes that share their tensors."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import jobs

# A process that the user spawned computes; its main module is loaded under another name.
SCRIPT = """
import multiprocessing
from pathlib import Path

import numpy as np
import torch

import jobs
import closures
import mine


def note(tensor):
    '''Write how the memory of a tensor is mapped in a worker.'''
    process = multiprocessing.current_process()
    if not process.name.startswith("worker"):
        return
    regions = Path("/proc/self/smaps").read_text().split("VmFlags")
    for region in regions:
        lines = [line for line in region.splitlines() if line]
        head = next((line for line in lines if "-" in line.split()[0]), "")
        begin, _, end = head.partition(" ")[0].partition("-")
        if begin and int(begin, 16) <= tensor.data_ptr() < int(end, 16):
            own = next(line for line in lines if line.startswith("Anonymous"))
            Path(f"{process.name}.{process.pid}").write_text(head + own)


class Net(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.table = torch.nn.Parameter(torch.arange(2.0**20, dtype=torch.float64))
        # A closure of a module travels by value; its source counts in each process.
        self.scaled = closures.scaled_by(factor)

    def forward(self, x):
        note(self.table)
        return self.scaled(mine.square(x)) * torch.tensor(0.1) * self.table[:8]


def work():
    # Else the fingerprint of a worker would be another.
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("high")
    options = dict(devices="cpu:2", strategy="forward-loop", chunk_size=2, progress="quiet")
    with jobs.compute("jacobian", Net(3.0), torch.arange(8.0), **options) as result:
        assert len(result.execution["workers"]) == 2
        np.testing.assert_allclose(result[...], np.diag(0.6 * np.arange(8.0) ** 2), rtol=1e-14)


if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=work)
    child.start()
    child.join()
    raise SystemExit(child.exitcode)
"""


def test_a_module_travels_from_a_spawned_process_and_its_weights_are_shared(
    run_program: Callable[..., str], directory: Path
) -> None:
    (directory / "mine.py").write_text("def square(x): return x**2\n")
    (directory / "closures.py").write_text("def scaled_by(k): return lambda x: k * x\n")
    run_program(SCRIPT)
    seen = [file.read_text() for file in directory.glob("worker-*")]
    assert len(seen) == 2
    for text in seen:
        assert "memfd:autodiff-jobs" in text
        # Of 8 MiB no process has pages of its own.
        assert int(text.split()[-2]) < 100


@pytest.mark.parametrize("place", ["closure", "attribute", "default"])
def test_what_cannot_travel_is_named_before_anything_is_computed(
    place: str, directory: Path
) -> None:
    lock = threading.Lock()
    evaluations = []

    def in_closure(x: Tensor) -> Tensor:
        evaluations.append(lock)
        return x**2

    def by_default(x: Tensor, *, used: Any = lock) -> Tensor:
        evaluations.append(used)
        return x**2

    def with_attribute(x: Tensor) -> Tensor:
        evaluations.append(x)
        return x**2

    vars(with_attribute)["lock"] = lock
    function: Any = {"closure": in_closure, "default": by_default, "attribute": with_attribute}
    with pytest.raises(jobs.ConfigurationError, match=r"lock|used") as caught:
        jobs.compute("jacobian", function[place], torch.ones(3), devices="cpu:2", name="named")
    assert "cannot be sent to other processes" in str(caught.value)
    assert "valid is one device" in str(caught.value)
    assert evaluations == []
    assert list(directory.iterdir()) == []
