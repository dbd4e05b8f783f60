"""What is chosen, why, and within which limits; the probes are real."""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autodiff_core._engines import compiled
from jobs.errors import JobError, OutOfMemoryError
from jobs.execution.execute import execute
from jobs.execution.preparation import Prepared, prepare
from jobs.job import Job
from jobs.machine.memory import Budget
from jobs.planning import growth, search
from jobs.planning.candidate import Candidate, Search
from jobs.planning.cost import Trial
from jobs.planning.decision import Decision
from jobs.planning.search import decide
from jobs.planning.thresholds import THRESHOLDS
from jobs.records.status_file import JobStatus
from jobs.reporting.terminal import Display
from outputs import Result, ResultWriter, open_result, part_path

Resolve = Callable[..., Job]
WIDE = """
import torch

def wide(x): return torch.stack([(x * x).sum(), x.sin().sum()])
def tall(x): return torch.outer(x, torch.arange(500.0, dtype=x.dtype)).sin().reshape(-1)
class NoForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.clone()
    @staticmethod
    def backward(ctx, gradient): return gradient
def without_forward(x): return NoForward.apply(x) * torch.outer(x, x).sum(0)
def long(): return torch.linspace(0, 1, 3000)
def short(): return torch.linspace(0, 1, 3)
"""


@pytest.fixture
def planned(directory: Path, resolved: Resolve) -> Callable[..., Prepared]:
    (directory / "shapes.py").write_text(WIDE)

    def plan(function: str, point: str, *options: str) -> Prepared:
        target = ("function=python", f"function.target=shapes:{function}")
        point = f"function.point=shapes:{point}"
        job = resolved("op=jacobian", "compile=never", *target, point, *options)
        return prepare(job, job.paths.result)

    return plan


@pytest.fixture
def measured(resolved: Resolve, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Plans the Jacobian of a Brusselator with 2 n² lines as if chunks took given times."""

    def plan(
        n: int = 16, **seconds: Callable[[int], float]
    ) -> tuple[Decision, list[tuple[str, int]]]:
        tried: list[tuple[str, int]] = []

        def trial(job: Job, candidate: Candidate, chunk_size: int, *others: object) -> Trial:
            strategy = candidate.strategy
            # The very first chunk loads what the others need.
            first = 0.0 if strategy in dict(tried) else 0.2
            taken = seconds[strategy.replace("-", "_")](chunk_size)
            tried.append((strategy, chunk_size))
            return Trial(chunk_size, first + taken, 2**20, continues=first > 0)

        monkeypatch.setattr(growth, "measure_chunk", trial)
        # Times by engine are another test's.
        never = replace(THRESHOLDS, share_to_record=0.0, seconds_to_record_anyway=0.0)
        monkeypatch.setattr(search, "THRESHOLDS", never)
        options = ("op=jacobian", "function=brusselator", f"function.n={n}", "compile=never")
        job, budget = resolved(*options), Budget(2**34, "as a test has it")
        return decide(job, budget, strategy="auto"), tried

    return plan


def turns(tried: list[tuple[str, int]]) -> list[str]:
    """The strategies in the order in which they were measured."""
    return [strategy for strategy, _ in itertools.groupby(strategy for strategy, _ in tried)]


def test_a_strategy_that_promises_less_than_the_other_gives_is_not_measured_further(
    measured: Callable[..., Any],
) -> None:
    decision, tried = measured(
        vectorize=lambda size: 0.01 + 0.01 * size, forward_mode=lambda size: 0.01 + 0.001 * size
    )
    assert decision.strategy == "forward-mode"
    assert turns(tried) == ["vectorize", "forward-mode"]
    assert dict(tried)["vectorize"] < dict(tried)["forward-mode"]


def test_larger_chunks_that_did_not_pay_for_one_strategy_are_not_tried_for_the_other(
    measured: Callable[..., Any],
) -> None:
    decision, tried = measured(
        64,
        vectorize=lambda size: 0.02 if size <= 16 else 0.02 * size,
        forward_mode=lambda size: 0.01 if size <= 16 else 0.01 * size,
    )
    assert (decision.strategy, decision.chunk_size) == ("forward-mode", 16)
    assert decision.largest_chunk == 16, "the run does not try them either"
    sizes = {strategy: {size for name, size in tried if name == strategy} for strategy, _ in tried}
    assert max(sizes["vectorize"]) > 16
    assert sizes["forward-mode"] == {1, 4, 16}


def test_a_strategy_that_fell_back_is_compared_with_the_other_even_in_a_short_run(
    resolved: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trial(job: Job, candidate: Candidate, chunk_size: int, *others: object) -> Trial:
        if candidate.strategy == "forward-mode":
            candidate.fallbacks.append("forward-mode: one vector at a time, because a test says so")
            return Trial(chunk_size, 0.3 * chunk_size, 2**20)
        return Trial(chunk_size, 0.01 * chunk_size, 2**20)

    monkeypatch.setattr(growth, "measure_chunk", trial)
    job = resolved("op=jacobian", "function=brusselator", "function.n=3", "compile=never")
    decision = decide(job, Budget(2**34, "as a test has it"), strategy="auto")
    assert decision.strategy == "vectorize"


@pytest.mark.parametrize(("waited", "words"), [(0.1, "67% of the time"), (0.001, "")])
def test_the_plan_says_that_the_machine_is_busy(
    waited: float, words: str, planned: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trial(job: Job, candidate: Candidate, chunk_size: int, *others: object) -> Trial:
        return Trial(chunk_size, 0.05, 2**20, waited)

    monkeypatch.setattr(growth, "measure_chunk", trial)
    plan = planned("wide", "short").plan
    assert plan.busy.endswith(words)
    assert bool(plan.busy) is bool(words)


@pytest.mark.parametrize(("line", "sizes"), [(0.3, [1, 16]), (1e-5, [1, 256])])
def test_a_chunk_that_is_asked_for_is_measured_or_one_for_which_there_is_time(
    line: float, sizes: list[int], resolved: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def trial(job: Job, candidate: Candidate, chunk_size: int, *others: object) -> Trial:
        tried.append(chunk_size)
        return Trial(chunk_size, line * chunk_size, chunk_size * 2**20)

    monkeypatch.setattr(growth, "measure_chunk", trial)
    options = ("op=jacobian", "function=brusselator", "function.n=16", "compile=never")
    job = resolved(*options, "strategy=forward-mode", "chunk_size=256")
    decision = decide(job, Budget(2**34, "as a test has it"), strategy="forward-mode")
    assert sorted(set(tried)) == sizes
    assert decision.peak_bytes >= 256 * 2**20


def test_a_strategy_that_has_waited_for_a_slower_one_continues(
    measured: Callable[..., Any],
) -> None:
    decision, tried = measured(
        32, vectorize=lambda size: 0.05 + 0.01 * size, forward_mode=lambda size: 0.1 * size
    )
    assert decision.strategy == "vectorize"
    assert turns(tried)[:3] == ["vectorize", "forward-mode", "vectorize"]
    assert decision.chunk_size >= dict(tried)["vectorize"] > dict(tried)["forward-mode"]


def test_what_runs_out_of_memory_after_it_has_waited_keeps_what_was_measured(
    measured: Callable[..., Any],
) -> None:
    refused: list[int] = []

    def with_a_limit(size: int) -> float:
        if size > 16:
            refused.append(size)
            raise OutOfMemoryError("as a test has it")
        return 0.05 + 0.01 * size

    decision, tried = measured(32, vectorize=with_a_limit, forward_mode=lambda size: 0.1 * size)
    assert turns(tried)[:3] == ["vectorize", "forward-mode", "vectorize"]
    assert refused == [64]
    assert (decision.strategy, decision.chunk_size) == ("vectorize", 16)


def test_larger_chunks_than_were_measured_are_left_to_the_run(
    measured: Callable[..., Any],
) -> None:
    """Of so short a run little can be measured, and the run can return to smaller chunks."""
    decision, tried = measured(
        vectorize=lambda size: 0.1 + 1e-4 * size, forward_mode=lambda size: 1.0 + 1.0 * size
    )
    largest = max(size for strategy, size in tried if strategy == "vectorize")
    assert decision.chunk_size == largest < 512
    assert decision.largest_chunk > decision.chunk_size


def test_few_rows_are_pulled_back(planned: Callable[..., Prepared]) -> None:
    plan = planned("wide", "long").plan
    assert plan.strategy in ("vectorize", "reverse-loop")
    assert "2 rows" in plan.strategy_reason
    assert "forward-mode not tried for its 3000 columns" in plan.strategy_reason


def test_few_columns_are_pushed_forward(planned: Callable[..., Prepared]) -> None:
    plan = planned("tall", "short").plan
    assert plan.strategy in ("forward-mode", "forward-loop")
    assert re.search(r"3 columns, measured .*s a column", plan.strategy_reason)
    assert "vectorize not tried for its 1500 rows" in plan.strategy_reason


@pytest.mark.parametrize(
    ("function", "point", "loop"),
    [("wide", "long", "reverse-loop"), ("tall", "short", "forward-loop")],
)
def test_a_loop_has_the_passes_of_its_batched_form(
    function: str,
    point: str,
    loop: str,
    planned: Callable[..., Prepared],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Loops are compared where batches are small, here always, and there is time enough.
    given = {"small_batch": 10**6, "seconds_anyway": 10.0, "seconds_at_most": 20.0}
    monkeypatch.setattr(search, "THRESHOLDS", replace(THRESHOLDS, **given))
    plan = planned(function, point).plan
    assert f"{loop} not tried" not in plan.strategy_reason
    assert plan.strategy == loop or f"; {loop} " in plan.strategy_reason


def test_a_function_without_forward_derivatives_is_pulled_back(
    planned: Callable[..., Prepared],
) -> None:
    plan = planned("without_forward", "short").plan
    assert plan.strategy in ("vectorize", "reverse-loop")
    assert "forward-mode cannot differentiate this function" in plan.strategy_reason


def test_what_was_asked_for_is_kept(planned: Callable[..., Prepared]) -> None:
    plan = planned("tall", "short", "strategy=vectorize", "chunk_size=123").plan
    assert (plan.strategy, plan.chunk_size) == ("vectorize", 123)
    assert plan.strategy_reason.partition(";")[0] == plan.chunk_reason == "as requested"


def test_a_chunk_that_was_asked_for_and_does_not_fit_is_refused(
    planned: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    occupied = planned("wide", "long", "strategy=forward-mode").plan.peak_bytes
    with pytest.raises(JobError, match=r"chunk_size=3000 needs about .* chunk_size=auto finds one"):
        planned(
            *("tall", "long", "strategy=forward-mode", "chunk_size=3000"),
            f"memory={occupied // 2**20 + 400}MiB",
        )


def test_chunks_stay_within_the_budget(planned: Callable[..., Prepared]) -> None:
    occupied = planned("wide", "short", "strategy=forward-mode").plan.peak_bytes
    # A column of 1.5 million entries takes 12 MB, and a few times that while it is computed.
    budget = occupied // 2**20 + 300
    tight = planned("tall", "long", "strategy=forward-mode", f"memory={budget}MiB").plan
    assert tight.peak_bytes <= budget * 2**20
    assert tight.chunk_size <= 16


def test_what_a_compiler_cannot_do_is_reported(
    run_job: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(traced: object, *given: object, **options: object) -> object:
        raise RuntimeError("no C++ compiler found")

    monkeypatch.setattr(compiled, "compiled", no_compiler)
    monkeypatch.setattr(compiled, "compiled_now", no_compiler)
    problem = ("function=brusselator", "function.n=6", "strategy=forward-mode")
    record = run_job("op=jacobian", *problem, "compile=always").execution
    assert record["engine"] == "captured"
    assert "no C++ compiler found" in record["engine_refusal"]
    assert "not compiled (RuntimeError: no C++ compiler" in record["plan"]["strategy_reason"]


def test_random_numbers_are_the_same_for_every_probe(
    directory: Path, run_job: Callable[..., Result]
) -> None:
    (directory / "noise.py").write_text(
        "import torch\n"
        "def f(x): return x.sin() * torch.rand(40, dtype=x.dtype)\n"
        "def p(): return torch.linspace(0, 1, 40)\n"
    )
    target = ("function=python", "function.target=noise:f", "function.point=noise:p", "seed=5")
    auto = run_job("op=jacobian", *target)
    torch.manual_seed(5)
    x = torch.linspace(0, 1, 40).double()
    expected = torch.diag(x.cos() * torch.rand(40, dtype=torch.float64))
    assert torch.allclose(torch.from_numpy(auto[...]), expected, rtol=1e-12, atol=0)


def test_the_record_tells_what_was_predicted_and_what_was_used(
    run_job: Callable[..., Result],
) -> None:
    result = run_job("op=hessian", "function=rosenbrock", "function.n=30")
    record = result.execution
    assert result.strategy in ("vectorize", "forward-mode", "reverse-loop", "forward-loop")
    assert record["plan"]["predicted_peak_bytes"] > 0
    assert record["peak_memory_bytes"] > 0
    assert record["plan"]["memory_budget_bytes"] > record["plan"]["predicted_peak_bytes"]
    assert "measured" in record["plan"]["strategy_reason"]


def test_what_was_begun_by_one_strategy_is_not_continued_with_by_another(
    resolved: Resolve, quiet: Display, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = resolved("op=hessian", "function=rosenbrock", "function.n=30")
    written: list[int] = []
    write = ResultWriter.write

    def fail_later(self: ResultWriter, start: int, stop: int, values) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(start)
        write(self, start, stop, values)

    def measure_the_loop(state: Search) -> None:
        search._measure(state, "reverse-loop", remaining=1)

    monkeypatch.setattr(search, "_measure_all", measure_the_loop)
    monkeypatch.setattr("jobs.planning.cost.SECONDS_OF_A_BLOCK", 0.0)
    monkeypatch.setattr("outputs._writing.background._BYTES_AT_ONCE", 1)
    monkeypatch.setattr(ResultWriter, "write", fail_later)
    with pytest.raises(KeyboardInterrupt):
        execute(job, quiet)
    monkeypatch.undo()
    assert JobStatus.read(job.paths.status).state == "interrupted"
    assert part_path(job.paths.result).exists()
    with open_result(execute(job, quiet)) as result:
        assert result.strategy == "reverse-loop"
        assert result.execution["lines_resumed"] > 0
    status = JobStatus.read(job.paths.status)
    assert (status.state, status.lines_done) == ("finished", 30)


def test_a_failed_job_leaves_its_reason_for_watchers(
    directory: Path, resolved: Resolve, quiet: Display
) -> None:
    (directory / "bad.py").write_text("def f(x): raise ValueError('not today')\n")
    target = ("function=python", "function.target=bad:f", "inputs=random", "inputs.shapes=[[3]]")
    job = resolved("op=jacobian", *target)
    with pytest.raises(JobError, match="not today"):
        execute(job, quiet)
    status = JobStatus.read(job.paths.status)
    assert status.state == "failed"
    assert "not today" in status.message


def test_a_plan_holds_what_a_program_wants_to_know(planned: Callable[..., Prepared]) -> None:
    plan = planned("tall", "short").plan
    figures = json.loads(json.dumps(plan.figures()))
    assert figures["passes"] == {"reverse": 1500, "forward": 3}
    assert figures["bytes_of_matrix"] == 1500 * 3 * 8
    assert figures["missing"] == 3
    assert figures["workers"] == 1


@pytest.mark.parametrize("operation", ["vjp", "jvp", "vhp", "hvp"])
def test_products_choose_too(operation: str, run_job: Callable[..., Result]) -> None:
    result = run_job(f"op={operation}", "function=rosenbrock", "function.n=20", "vectors.count=7")
    pullback = ("vectorize", "reverse-loop")
    assert operation not in ("vjp", "vhp") or result.strategy in pullback
    assert result.execution["verification"]["lines_checked"] == 7


def test_the_plan_as_json(command_line: Callable[..., Any]) -> None:
    done = command_line("op=jacobian", "function=mlp", "function.n=6", "plan=true", "--json")
    plan = json.loads(done.out.splitlines()[0])
    assert (plan["event"], plan["rows"], plan["columns"]) == ("plan", 6, 6)
    assert plan["bytes_of_matrix"] == 6 * 6 * 8
    assert plan["peak_bytes"] < plan["memory_budget"]
