"""The plain engine computes where its chunks were measured to be faster than recorded ones."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.job import Job
from jobs.machine.memory import Budget
from jobs.planning import engines, growth, search
from jobs.planning.candidate import Candidate, Search
from jobs.planning.cost import Trial
from jobs.planning.decision import Decision
from jobs.planning.search import decide
from jobs.planning.thresholds import THRESHOLDS

FUNCTION = """
import torch

def steps(x):
    for _ in range(4):
        x = x + 0.1 * (x.roll(1) * x.roll(-2)).sin()
    return x
def point(): return torch.linspace(0, 1, 300, dtype=torch.float64)
"""


def _planned(resolved: Callable[..., Job]) -> Decision:
    target = ("function.target=stepping:steps", "function.point=stepping:point")
    job = resolved("op=jacobian", "compile=never", "function=python", *target)
    return decide(job, Budget(2**33, "tests"), strategy="vectorize")


def _assert_right(decision: Decision) -> None:
    names: dict[str, Callable[..., torch.Tensor]] = {}
    exec(FUNCTION, names)
    rows = torch.func.jacrev(names["steps"])(names["point"]())
    block = decision.stream.block(40, 60)
    torch.testing.assert_close(block.values, rows[40:60], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("plain", "recorded", "expected"),
    [(1e-9, 1.0, "plain"), (10.0, 1.0, "captured"), (1e-9, 1e-10, "captured")],
)
def test_the_faster_engine_computes(
    plain: float,
    recorded: float,
    expected: str,
    directory: Path,
    resolved: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (directory / "stepping.py").write_text(FUNCTION)
    behind = {"plain_behind": 1e9, "worse": 1e9}
    limits = {"share_to_record": 1e9, "share": 1e9, "seconds_anyway": 1e9, **behind}
    long_run = replace(THRESHOLDS, **limits)
    monkeypatch.setattr(search, "THRESHOLDS", long_run)
    measured: list[str] = []
    measure = engines.measure_chunk

    def trial(job: Job, candidate: Candidate, chunk_size: int, number: int) -> Trial:
        engine = candidate.opened.engine
        measured.append(engine)
        found = measure(job, candidate, chunk_size, number=number)
        return replace(found, seconds=plain if engine == "plain" else recorded)

    monkeypatch.setattr(engines, "measure_chunk", trial)
    decision = _planned(resolved)
    assert measured[0] == "plain"
    assert decision.stream.engine == expected
    assert ("not recorded, which gives" in decision.strategy_reason) == (expected == "plain")
    _assert_right(decision)


@pytest.mark.parametrize("faster", ["plain", "captured"])
def test_what_was_faster_before_recording_computes(
    faster: str,
    directory: Path,
    resolved: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (directory / "stepping.py").write_text(FUNCTION)
    monkeypatch.setattr(search, "THRESHOLDS", replace(THRESHOLDS, share_to_record=1e9))
    # Batches of the plain engine take less, and the run is not so long that they do not matter.
    monkeypatch.setattr(Search, "seconds_to_record", lambda *_: 0.2)
    measure = growth.measure_chunk
    measured: list[tuple[str, int]] = []

    def trial(job: Job, candidate: Candidate, chunk_size: int, *others: Any) -> Trial:
        found = measure(job, candidate, chunk_size, *others)
        engine = candidate.opened.engine
        measured.append((engine, chunk_size))
        line = 1e-3 if engine == faster else 9e-3
        return replace(found, seconds=line * chunk_size**0.5)

    monkeypatch.setattr(growth, "measure_chunk", trial)
    # Not even a chunk is measured to compare them.
    monkeypatch.setattr(search, "try_plain", lambda *_: "")
    decision = _planned(resolved)
    assert {engine for engine, _ in measured} == {"plain", "captured"}
    assert decision.stream.engine == faster
    assert decision.chunk_size >= 64
    assert ("not recorded, which gives" in decision.strategy_reason) == (faster == "plain")
    _assert_right(decision)
