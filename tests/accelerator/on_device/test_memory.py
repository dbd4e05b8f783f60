"""Memory of a device: its budget, its statistics, and allocations that the allocator refuses."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jobs
from autodiff_core import blocks
from jobs.errors import ConfigurationError, JobError
from jobs.machine import accelerator
from jobs.machine.measurement import measuring
from jobs.machine.memory import memory_budget
from outputs import verify_result
from tests.accelerator.on_device.conftest import KIND
from tests.jobs.support.problem_cases import build, inputs

# The allocator of CUDA takes memory from the driver in pieces of 20 MiB.
EDGE = 14 if KIND == "software" else 48
SIZE = 2 * EDGE**2
OPTIONS = ("op=jacobian", "strategy=vectorize", "function=brusselator", f"function.n={EDGE}")


@contextmanager
def limited(device: torch.device, size: int) -> Iterator[None]:
    """Let allocations beyond a size fail while the body runs."""
    if KIND == "software":
        torch.ops.software.set_limit(device.index, size)
        yield
        torch.ops.software.set_limit(device.index, 2**30)
        return
    module: Any = torch.get_device_module(device)
    total = torch.accelerator.get_memory_info(device)[1]
    module.set_per_process_memory_fraction(min(1.0, size / total))
    yield
    module.set_per_process_memory_fraction(1.0)


def peak(device: torch.device, chunk_size: int) -> int:
    problem = build("brusselator", n=EDGE, device=KIND)
    stream = blocks(
        *(problem.function, inputs(problem)),
        operation="jacobian",
        strategy="vectorize",
        chunk_size=chunk_size,
    )
    next(iter(stream))
    with measuring(device) as found:
        _ = stream.block(0, chunk_size).values
    return found.peak_bytes


def test_memory_that_runs_out_halves_the_chunk(
    device: torch.device, run_job: Callable[..., Any]
) -> None:
    small, large = peak(device, SIZE // 8), peak(device, SIZE)
    assert small < large
    with limited(device, (small + 2 * large) // 3):
        result = run_job(*OPTIONS, f"devices={device}", "memory=64GiB", f"chunk_size={SIZE}")
    sizes = result.execution["chunk_sizes"]
    assert sizes[0] == SIZE
    assert sizes[1] == SIZE // 2
    assert "out of memory" in " ".join(result.execution["fallbacks"])
    here = run_job(*OPTIONS, "devices=cpu", "runs=here")
    assert np.allclose(result[:], here[:], rtol=1e-9)
    assert verify_result(result.path).ok


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("size", "message"),
    [
        (2**15, r"memory, and the budget is .* \(what is free on software:0\)"),
        (2**8, r"^devices=software:0: out of memory while .* were loaded \(.*allocate"),
    ],
)
def test_what_does_not_fit_at_all_is_one_sentence(
    device: torch.device, directory: Path, size: int, message: str
) -> None:
    x = torch.linspace(0.1, 1, 64, dtype=torch.float64)
    torch.accelerator.synchronize(device)
    held = torch.accelerator.memory_allocated(device)
    with limited(device, held + size), pytest.raises(JobError, match=message):
        jobs.compute(
            "jacobian", lambda x: torch.outer(x, x).sum(0), x, devices=str(device), memory="64GiB"
        )


@pytest.mark.hostile
def test_copies_do_without_pinned_memory(
    device: torch.device, run_job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = torch.empty

    def empty(*given: Any, **more: Any) -> torch.Tensor:
        if more.get("pin_memory"):
            raise RuntimeError("no memory can be pinned")
        return original(*given, **more)

    options = ("op=jacobian", "strategy=vectorize", "function=mlp", "function.n=6", "chunk_size=2")
    pinned = run_job(*options, f"devices={device}", "runs=pinned")
    monkeypatch.setattr(torch, "empty", empty)
    assert np.array_equal(run_job(*options, f"devices={device}", "runs=other")[:], pinned[:])


def test_a_plan_keeps_within_what_is_free(
    device: torch.device, run_job: Callable[..., Any]
) -> None:
    limit = (peak(device, SIZE // 8) + 2 * peak(device, SIZE)) // 3
    with limited(device, limit):
        result = run_job(*OPTIONS, f"devices={device}")
    assert result.execution["peak_memory_bytes"] <= limit
    assert result.execution["chunk_sizes"][-1] < SIZE
    assert not any("out of memory" in each for each in result.execution["fallbacks"])


@pytest.mark.parametrize("chunk_size", ["auto", SIZE // 3, SIZE])
def test_the_peak_is_the_one_that_was_planned(
    device: torch.device,
    run_job: Callable[..., Any],
    chunk_size: str | int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The block that takes most is often the one that planning has measured: the run computes all.
    monkeypatch.setattr("jobs.planning.trials.keep", lambda stream, block: None)
    execution = run_job(*OPTIONS, f"devices={device}", f"chunk_size={chunk_size}").execution
    planned = execution["plan"]["predicted_peak_bytes"]
    assert 0.7 * planned < execution["peak_memory_bytes"] < 1.4 * planned


def test_statistics_are_those_of_the_tensors(device: torch.device) -> None:
    before = accelerator.allocated_memory(device)
    with measuring(device) as found:
        held = torch.zeros(2**18, dtype=torch.float64, device=device)
        del held
        kept = torch.zeros(2**17, dtype=torch.float64, device=device)
    assert accelerator.allocated_memory(device) - before == kept.nbytes
    assert found.peak_bytes - before == 2 * kept.nbytes
    free, total = accelerator.device_memory(device) or (0, 0)
    assert 0 < free < total
    assert memory_budget(None, device).bytes == pytest.approx(0.9 * free, rel=0.05)
    assert memory_budget(10**6, device, workers=2).bytes == 10**6


def test_a_backend_without_figures_needs_a_size(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(device: torch.device) -> None:
        raise NotImplementedError("no such figure")

    monkeypatch.setattr(torch.accelerator, "get_memory_info", unknown)
    with pytest.raises(ConfigurationError, match=r"memory=auto: .*; valid is a size"):
        memory_budget(None, device)
    assert memory_budget(5, device).bytes == 5


def test_a_backend_without_statistics_counts_tensors(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.machine.accelerator.has_statistics", lambda device: False)
    with measuring(device) as found:
        torch.zeros(1000, dtype=torch.float64, device=device).mul_(2)
    assert found.peak_bytes == 8000
    assert accelerator.peak_allocated_memory(device) == 0
