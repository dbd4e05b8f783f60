"""Jobs on CUDA devices give the results of jobs on the CPU, within their memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from outputs import verify_result

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CASES = [
    ("op=jacobian", "strategy=vectorize", "function=brusselator", "function.n=12"),
    ("op=jacobian", "strategy=forward-mode", "function=gp_residual", "function.n=200"),
    ("op=hessian", "strategy=forward-mode", "function=pairwise_energy", "function.n=20"),
    ("op=hessian", "strategy=reverse-loop", "function=mlp_parameters", "function.n=4"),
    ("op=jvp", "strategy=vectorize", "function=mlp", "function.n=30", "vectors.count=9"),
]


@pytest.mark.parametrize("options", CASES, ids=" ".join)
@pytest.mark.parametrize("devices", ["cuda", "cuda:0", "[cuda:0]"])
def test_the_result_is_that_of_the_processor(
    run_job: Callable[..., Any], options: tuple[str, ...], devices: str
) -> None:
    there = run_job(*options, f"devices={devices}", "runs=there")
    here = run_job(*options, "devices=cpu", "runs=here")
    assert np.allclose(there[:], here[:], rtol=1e-9, atol=1e-9 * np.abs(here[:]).max())
    assert "cuda" in there.execution["device"]
    assert verify_result(there.path).ok


def test_a_worker_copies_what_it_computed(
    run_job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two workers on one device take the code path of several devices.
    monkeypatch.setattr(
        "jobs.job.choose_devices",
        lambda value, dtype: (torch.device("cuda:0"), torch.device("cuda:0")),
    )
    options = ("op=jacobian", "strategy=vectorize", "function=mlp", "function.n=64", "chunk_size=5")
    shared = run_job(*options, "devices=cuda", "runs=shared")
    monkeypatch.undo()
    alone = run_job(*options, "devices=cuda:0", "runs=alone")
    assert np.array_equal(shared[:], alone[:])
    assert len(shared.execution["workers"]) == 2
    assert verify_result(shared.path).ok


def test_memory_that_runs_out_halves_the_chunk(run_job: Callable[..., Any]) -> None:
    options = ("op=jacobian", "strategy=vectorize", "function=mlp", "function.n=2048")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2**30 / total))
    try:
        result = run_job(*options, "devices=cuda:0", "memory=64GiB", "chunk_size=2048")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    sizes = result.execution["chunk_sizes"]
    assert sizes[0] == 2048
    assert sizes[-1] < 2048
    assert "out of memory" in " ".join(result.execution["fallbacks"])
