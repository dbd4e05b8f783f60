"""What is measured of a strategy, and what is not because it could decide nothing."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from jobs.job import Job
from jobs.machine.memory import Budget
from jobs.planning import chunk_choice, growth, search
from jobs.planning.candidate import Candidate, Search
from jobs.planning.cost import Trial
from jobs.planning.search import decide
from jobs.planning.thresholds import THRESHOLDS
from jobs.streams.single import SingleStream

Resolve = Callable[..., Job]


def test_a_line_that_is_far_behind_is_measured_once(
    resolved: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[str, int]] = []

    def trial(job: Job, candidate: Candidate, chunk_size: int, *others: object) -> Trial:
        tried.append((candidate.strategy, chunk_size))
        line = {"vectorize": 0.01, "forward-mode": 0.1}[candidate.strategy]
        return Trial(chunk_size, line * chunk_size, 2**20)

    monkeypatch.setattr(growth, "measure_chunk", trial)
    job = resolved("op=jacobian", "function=brusselator", "function.n=16", "compile=never")
    decision = decide(job, Budget(2**34, "as a test has it"), strategy="auto")
    assert decision.strategy == "vectorize"
    assert tried.count(("vectorize", 1)) == 2
    assert tried.count(("forward-mode", 1)) == 1


@pytest.mark.parametrize(("lines", "batches"), [(0, False), (10**9, True)])
def test_batches_are_measured_before_recording_only_where_they_take_less_time(
    lines: int,
    batches: bool,
    resolved: Resolve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    affordable = {"share_to_record": 1e12, "share": 1e9, "seconds_anyway": 1e9}
    takes = {"seconds_of_a_node": float(lines), "lines_of_python_to_record": lines}
    monkeypatch.setattr(search, "THRESHOLDS", replace(THRESHOLDS, **affordable, **takes))
    measured: list[tuple[str, int]] = []
    measure = growth.measure_chunk

    def trial(job: Job, candidate: Candidate, chunk_size: int, *others: Any) -> Trial:
        found = measure(job, candidate, chunk_size, *others)
        measured.append((candidate.opened.engine, chunk_size))
        return found

    monkeypatch.setattr(growth, "measure_chunk", trial)
    job = resolved("op=jacobian", "function=brusselator", "function.n=8", "compile=never")
    decide(job, Budget(2**34, "as a test has it"), strategy="vectorize")
    assert any(engine == "plain" and size > 1 for engine, size in measured) is batches
    assert measured[-1][0] == "captured"
    assert ("captured", 1) not in measured


@pytest.mark.parametrize(("devices", "share"), [("cpu:1", 1.0), ("cpu:2", 0.5)])
def test_workers_share_what_was_computed_whole_to_measure_it(
    devices: str, share: float, resolved: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunk_choice, "kept_lines", lambda stream: [range(32)])
    job = resolved("op=jacobian", "function=brusselator", "function.n=4", f"devices={devices}")
    decision = decide(job, Budget(2**34, "as a test has it"), strategy="vectorize")
    assert decision.costs.lines == 32
    assert decision.chunk_size <= share * 32
    assert (decision.chunk_size == 32) is (share == 1.0)


@pytest.mark.parametrize(
    ("lines", "counts"),
    [
        pytest.param({1: 0.05, 4: 0.005, 16: 0.005}, {4: 1, 16: 2}, id="much better, then as good"),
        pytest.param({1: 0.01, 4: 0.001, 16: 1e-4}, {4: 2, 16: 2}, id="much better in no time"),
        pytest.param({1: 0.01, 4: 0.01, 16: 0.03}, {4: 2, 16: 1}, id="as good, then far behind"),
        pytest.param({1: 0.01, 4: 0.03, 16: 0.01}, {4: 2, 16: 2}, id="the first batch disappoints"),
        pytest.param({1: 0.01, 4: 0.01, 16: 0.02}, {4: 2, 16: 1}, id="first looks are as good"),
    ],
)
def test_a_chunk_is_measured_again_where_a_second_look_may_decide(
    lines: dict[int, float],
    counts: dict[int, int],
    resolved: Resolve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = replace(THRESHOLDS, share=1e9, share_to_record=0.0, seconds_to_record_anyway=0.0)
    monkeypatch.setattr(search, "THRESHOLDS", limits)
    tried: list[int] = []

    def trial(job: Job, candidate: Candidate, chunk_size: int, *others: object) -> Trial:
        tried.append(chunk_size)
        return Trial(chunk_size, lines.get(chunk_size, 1.0) * chunk_size, 2**20)

    monkeypatch.setattr(growth, "measure_chunk", trial)
    job = resolved("op=jacobian", "function=brusselator", "function.n=16", "compile=never")
    decide(job, Budget(2**34, "as a test has it"), strategy="vectorize")
    assert {size: tried.count(size) for size in counts} == counts


def test_before_recording_a_batch_that_disappoints_is_measured_once(
    resolved: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = {"share_to_record": 1e9, "seconds_of_a_node": 1e9, "lines_of_python_to_record": 1e9}
    limits = replace(THRESHOLDS, share=1e9, **recorded)
    monkeypatch.setattr(search, "THRESHOLDS", limits)
    tried: list[tuple[str, int]] = []

    def trial(job: Job, candidate: Candidate, chunk_size: int, *others: object) -> Trial:
        engine = candidate.engine
        tried.append((engine, chunk_size))
        line = {1: 0.01, 4: 0.03}.get(chunk_size, 0.1) if engine == "plain" else 0.001
        return Trial(chunk_size, line * chunk_size, 2**20)

    monkeypatch.setattr(growth, "measure_chunk", trial)
    job = resolved("op=jacobian", "function=brusselator", "function.n=16", "compile=never")
    decide(job, Budget(2**34, "as a test has it"), strategy="vectorize")
    assert tried.count(("plain", 4)) == 1
    assert ("auto", 4) in tried


@pytest.mark.parametrize(("first", "looks"), [(1.0, 1), (2.0, 2)])
def test_first_looks_that_take_longer_ask_for_a_second_at_the_next_size(
    first: float, looks: int, resolved: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = replace(THRESHOLDS, share=1e9, share_to_record=0.0, seconds_to_record_anyway=0.0)
    monkeypatch.setattr(search, "THRESHOLDS", limits)
    tried: list[int] = []

    def trial(job: Job, candidate: Candidate, chunk_size: int, *others: object) -> Trial:
        longer = 1.0 if chunk_size in tried else first
        tried.append(chunk_size)
        line = {1: 0.005, 4: 0.005 * longer, 16: 0.0099}.get(chunk_size, 1.0)
        return Trial(chunk_size, line * chunk_size, 2**20)

    monkeypatch.setattr(growth, "measure_chunk", trial)
    job = resolved("op=jacobian", "function=brusselator", "function.n=16", "compile=never")
    decide(job, Budget(2**34, "as a test has it"), strategy="vectorize")
    assert tried.count(16) == looks


def test_a_chunk_that_loaded_modules_is_no_look(
    resolved: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        search, "THRESHOLDS", replace(THRESHOLDS, share_to_record=0.0, seconds_to_record_anyway=0.0)
    )
    tried: list[int] = []

    def trial(job: Job, candidate: Candidate, chunk_size: int, *others: object) -> Trial:
        is_first = chunk_size not in tried
        tried.append(chunk_size)
        if chunk_size == 4 and is_first:
            monkeypatch.setitem(sys.modules, "loaded_by_a_test", sys)
            return Trial(chunk_size, 5.0, 2**20)
        return Trial(chunk_size, 1e-3, 2**20)

    monkeypatch.setattr(growth, "measure_chunk", trial)
    job = resolved("op=jacobian", "function=brusselator", "function.n=16", "compile=never")
    decision = decide(job, Budget(2**34, "as a test has it"), strategy="vectorize")
    assert tried.count(4) >= 2
    assert decision.costs.line_seconds(4) < 1.0


@pytest.fixture
def recorded(resolved: Resolve, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Plans the Jacobian of a Brusselator as if its recorded programs took given times."""

    def plan(
        time: Callable[[str, int], Trial], *, seconds_to_record: float = 0.0, strategy: str = "auto"
    ) -> list[tuple[str, str, int]]:
        limits = replace(THRESHOLDS, share_to_record=1e9, share_to_record_another=1e9)
        monkeypatch.setattr(search, "THRESHOLDS", limits)
        monkeypatch.setattr(Search, "seconds_to_record", lambda *given: seconds_to_record)
        tried: list[tuple[str, str, int]] = []

        def trial(job: Job, candidate: Candidate, chunk_size: int, *others: object) -> Trial:
            engine = "plain" if candidate.engine == "plain" else "captured"
            monkeypatch.setattr(SingleStream, "engine", engine)
            tried.append((candidate.strategy, engine, chunk_size))
            if engine == "plain":
                return Trial(chunk_size, 0.02 * chunk_size**0.5, 2**20)
            return time(candidate.strategy, chunk_size)

        monkeypatch.setattr(growth, "measure_chunk", trial)
        job = resolved("op=jacobian", "function=brusselator", "function.n=32")
        decide(job, Budget(2**34, "as a test has it"), strategy=strategy)
        return tried

    return plan


@pytest.mark.parametrize(("seconds", "is_long"), [(0.2, True), (3.0, False)])
def test_in_a_long_run_the_first_batch_is_enough_to_record(
    seconds: float, is_long: bool, recorded: Callable[..., Any]
) -> None:
    tried = recorded(
        lambda strategy, size: Trial(size, 1e-3 * size, 2**20),
        seconds_to_record=seconds,
        strategy="vectorize",
    )
    plain = [size for _, engine, size in tried if engine == "plain"]
    assert max(plain) > 1
    assert (max(plain) == 4) is is_long


def test_the_second_strategy_is_recorded_in_chunks_that_paid_for_the_first(
    recorded: Callable[..., Any],
) -> None:
    tried = recorded(lambda strategy, size: Trial(size, 1e-3 * size**0.5, 2**20))
    sizes = {
        strategy: [size for name, engine, size in tried if (name, engine) == (strategy, "captured")]
        for strategy in ("vectorize", "forward-mode")
    }
    # 1024 are as fast as all 2048.
    assert (min(sizes["vectorize"]), max(sizes["vectorize"])) == (4, 2048)
    assert min(sizes["forward-mode"]) == 256
