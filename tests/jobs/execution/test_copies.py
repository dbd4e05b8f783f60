"""Blocks that are copied while the next one is computed, with a copy that only says so."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from jobs.errors import JobError
from jobs.execution import local_source
from jobs.execution.execute import execute
from jobs.job import Job
from jobs.machine.device_copies import copies_to_host, ready_to_copy
from jobs.reporting.terminal import Display
from outputs import open_result, part_path

Resolve = Callable[..., Job]
SMALL = ("op=jacobian", "strategy=vectorize", "function=brusselator", "function.n=4")


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is computed, and which copies begin and arrive, in order."""
    seen: list[tuple[str, int]] = []
    compute = local_source.compute_block

    def watched(job, stream, check, lines):
        seen.append(("compute", lines.start))
        return compute(job, stream, check, lines)

    def copying(device: torch.device):
        assert device.type == "cpu"

        def begin(values: torch.Tensor, stored: np.dtype):
            number = sum(kind == "begin" for kind, _ in seen)
            seen.append(("begin", number))
            source = ready_to_copy(values, stored)

            def finish() -> np.ndarray:
                seen.append(("arrive", number))
                return source.numpy()

            return finish

        return begin

    monkeypatch.setattr(local_source, "compute_block", watched)
    monkeypatch.setattr(local_source, "copies_to_host", copying)
    return seen


@pytest.mark.usefixtures("in_order")
def test_a_block_arrives_when_the_next_is_computed(
    resolved: Resolve, quiet: Display, events: list[tuple[str, int]]
) -> None:
    with open_result(execute(resolved(*SMALL, "chunk_size=16"), quiet)) as copied:
        values = copied[...]
    assert events == [
        ("compute", 0),
        ("begin", 0),
        ("compute", 16),
        ("arrive", 0),
        ("begin", 1),
        ("arrive", 1),
    ]
    plain = resolved(*SMALL, "strategy=reverse-loop", "runs=plain")
    with open_result(execute(plain, quiet)) as result:
        np.testing.assert_allclose(values, result[...], rtol=1e-12)


@pytest.mark.usefixtures("in_order")
def test_a_block_under_way_is_kept_when_the_next_one_fails(
    resolved: Resolve,
    quiet: Display,
    events: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = resolved(*SMALL, "chunk_size=8")
    compute = local_source.compute_block

    def failing(job, stream, check, lines):
        if lines.start == 16:
            raise JobError("planted")
        return compute(job, stream, check, lines)

    monkeypatch.setattr(local_source, "compute_block", failing)
    with pytest.raises(JobError, match="planted"):
        execute(job, quiet)
    with open_result(part_path(job.paths.result), allow_partial=True) as begun:
        assert begun.mask.nonzero()[0].tolist() == list(range(16))


def test_blocks_on_the_host_are_not_copied() -> None:
    assert copies_to_host(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("given", "stored"),
    [("bfloat16", "float32"), ("float32", "float64"), ("complex64", "complex64")],
)
def test_entries_are_made_ready(given: str, stored: str) -> None:
    values = torch.randn(3, 4).to(getattr(torch, given)).T
    ready = ready_to_copy(values.conj() if values.is_complex() else values, np.dtype(stored))
    assert ready.is_contiguous()
    assert ready.numpy().dtype == np.dtype(stored)
    expected = values.conj().resolve_conj() if values.is_complex() else values
    assert torch.equal(ready, expected.to(getattr(torch, stored)))
