"""How often the function itself is evaluated: a user's function may take minutes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from jobs.job import Job
from jobs.machine.memory import Budget
from jobs.planning import search
from jobs.planning.search import decide
from jobs.planning.thresholds import THRESHOLDS
from outputs import Result

COUNTED = """
from pathlib import Path
import time
import torch
CALLS = Path(__file__).with_name("calls")

def energy(x):
    with CALLS.open("a") as file:
        file.write(".")
    time.sleep(0.02)
    return (x.sin() * x.roll(1)).sum() ** 2
def forces(x):
    with CALLS.open("a") as file:
        file.write(".")
    time.sleep(0.02)
    return x.sin() * x.roll(1)
def point(): return torch.linspace(0.1, 1, 6)
def of_tensors(a, b): return (a.sin().sum() * b.cos().sum()) ** 2
def tensors(): return {"a": torch.linspace(0.1, 1, 6), "b": torch.linspace(1, 2, 9)}
"""


def of_tensors(a: Tensor, b: Tensor) -> Tensor:
    return (a.sin().sum() * b.cos().sum()) ** 2


def tensors() -> dict[str, Tensor]:
    return {"a": torch.linspace(0.1, 1, 6), "b": torch.linspace(1, 2, 9)}


OPERATIONS = pytest.mark.parametrize(
    ("operation", "function"), [("hessian", "energy"), ("jacobian", "forces")]
)
BUDGET = Budget(2**34, "as a test has it")


@pytest.fixture
def options(directory: Path) -> Callable[..., tuple[str, ...]]:
    (directory / "counted.py").write_text(COUNTED)

    def of(operation: str, function: str, *others: str) -> tuple[str, ...]:
        target = (f"function.target=counted:{function}", "function.point=counted:point")
        return (f"op={operation}", "function=python", *target, *others)

    return of


def calls(directory: Path) -> int:
    noted = directory / "calls"
    return len(noted.read_text()) if noted.exists() else 0


@OPERATIONS
@pytest.mark.parametrize("strategy", ["auto", "vectorize", "reverse-loop"])
def test_a_short_run_is_planned_with_the_evaluation_that_it_needs_itself(
    operation: str,
    function: str,
    strategy: str,
    directory: Path,
    options: Callable[..., tuple[str, ...]],
    resolved: Callable[..., Job],
) -> None:
    job = resolved(*options(operation, function))
    before = calls(directory)
    decision = decide(job, BUDGET, strategy=strategy)
    decision.stream.block(0, 6)
    assert decision.strategy in ("vectorize", "reverse-loop")
    assert calls(directory) - before == 1


@OPERATIONS
def test_recording_evaluates_no_function_in_reverse_mode(
    operation: str,
    function: str,
    directory: Path,
    options: Callable[..., tuple[str, ...]],
    resolved: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long_run = replace(THRESHOLDS, share_to_record=1e9)
    monkeypatch.setattr(search, "THRESHOLDS", long_run)
    # Of so small a function the plain engine may be measured to be faster.
    for compare in ("try_plain", "return_to_plain"):
        monkeypatch.setattr(search, compare, lambda *_: "")
    job = resolved(*options(operation, function))
    before = calls(directory)
    decision = decide(job, BUDGET, strategy="vectorize")
    assert decision.stream.engine == "captured"
    assert "not recorded" not in decision.strategy_reason
    assert calls(directory) - before == 1


@pytest.mark.parametrize(("share", "engine"), [(0.1, "plain"), (1e9, "captured")])
def test_each_block_of_a_matrix_records_where_the_run_affords_all(
    share: float,
    engine: str,
    directory: Path,
    resolved: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (directory / "counted.py").write_text(COUNTED)
    monkeypatch.setattr(
        search,
        "THRESHOLDS",
        replace(THRESHOLDS, share_to_record=share, seconds_to_record_anyway=0.0),
    )
    # Of so small a function the plain engine may be measured to be faster.
    monkeypatch.setattr(search, "return_to_plain", lambda *_: "")
    target = ("function.target=counted:of_tensors", "function.point=counted:tensors")
    job = resolved("op=hessian", "structure=blocks", "function=python", *target)
    decision = decide(job, BUDGET, strategy="vectorize")
    stream = decision.stream
    assert ("not recorded" in decision.strategy_reason) == (engine == "plain")
    point = (each.double() for each in tensors().values())
    expected = torch.func.hessian(of_tensors, (0, 1))(*point)
    for start, stop, block in ((0, 6, expected[0][0]), (6, 15, expected[1][1])):
        values = stream.block(start, stop).values
        assert stream.engine == engine
        torch.testing.assert_close(values[:, : stop - start], block)


@OPERATIONS
def test_a_whole_job_with_its_checks_evaluates_a_few_times(
    operation: str,
    function: str,
    directory: Path,
    options: Callable[..., tuple[str, ...]],
    run_job: Callable[..., Result],
) -> None:
    result = run_job(*options(operation, function))
    # One serves planning and all blocks. The stages of the function take one, differences of it
    # up to four, and the products by other routes two.
    assert calls(directory) <= 6, result.execution["plan"]["strategy_reason"]
