"""A result is called what was verified of it, by every command, and the exit codes say so."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from jobs import status
from jobs.errors import JobError
from jobs.execution import local_source
from jobs.report import main as report_main
from outputs import VerificationState, merge, open_result, open_sparse_result, show
from outputs.plot import main as plot
from outputs.verify import main as verify

Run = Callable[..., Any]
VERIFIED, PARTLY, NOT, CONTRADICTED = VerificationState

FUNCTIONS = """
import torch
from torch.autograd.function import once_differentiable

def right(x): return x.sin() * x.flip(0)
def kinks(x): return (x - 2).abs() * x
def through_numpy(x): return torch.as_tensor(x.detach().numpy()).sin() + 0 * x
def frozen(x): return x.detach() ** 2 * x
def root(x): return x.sqrt()

class Rapid(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (1e12 * x).sin()

    @staticmethod
    @once_differentiable
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return 1e12 * (1e12 * x).cos() * cotangent

def by_one_route(x): return Rapid.apply(x)

SCALE = torch.tensor([1e12, 1.0, 1.0, 1.0], dtype=torch.float64)

class NanInForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return (SCALE * x).sin()

    @staticmethod
    @once_differentiable
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return SCALE * (SCALE * x).cos() * cotangent

    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return (SCALE * (SCALE * x).cos() * tangent).index_fill(0, torch.tensor(0), torch.nan)

def nan_in_a_row(x): return NanInForwardMode.apply(x)
"""


class Case(NamedTuple):
    """A job, and what its result is called; exit codes of the job itself and with `require`."""

    function: str
    options: tuple[str, ...]
    state: VerificationState
    reason: str
    code: int
    required: int


ZEROS = "inputs.values.x=[0.0,0.0,0.0,0.0]"
CASES = [
    Case("right", (), VERIFIED, "4 rows agree .* the function agree", 0, 0),
    Case("right", ("strategy=forward-mode",), VERIFIED, "4 columns agree", 0, 0),
    Case("right", ("verify.differences=false",), VERIFIED, "verify.differences=false", 0, 0),
    Case("kinks", (), PARTLY, "4 rows agree .*differences inconclusive for ", 0, 3),
    Case("nan_in_a_row", (), PARTLY, "4 rows agree.*differences inconclusive", 0, 3),
    Case("right", ("verify=sample",), PARTLY, "sample of 3 rows and 3 columns", 0, 3),
    Case("right", ("verify=off",), NOT, "verify=off", 0, 4),
    Case("root", (ZEROS,), NOT, "4 rows have no finite independent product", 0, 4),
    Case("by_one_route", (), PARTLY, "4 rows agree.*differences inconclusive", 0, 3),
    Case("through_numpy", (), CONTRADICTED, "derivative gives .*verify.differences=false", 5, 5),
    Case("frozen", (), CONTRADICTED, "the derivative gives", 5, 5),
    Case("frozen", ("verify.differences=false",), VERIFIED, "no differences: verify.diff", 0, 0),
]


@pytest.fixture
def functions(directory: Path) -> Path:
    (directory / "own.py").write_text(FUNCTIONS)
    return directory


def of(name: str, *options: str) -> tuple[str, ...]:
    return (
        *("op=jacobian", "function=python", f"function.target=./own.py:{name}"),
        *("strategy=reverse-loop", "inputs=constants", "inputs.values.x=[0.5,1.0,2.0,3.0]"),
        *options,
    )


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join((case.function, *case.options)))
def test_every_command_tells_the_state_first(
    case: Case, command_line: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = command_line(*of(case.function, *case.options))
    assert ended.code == case.code, ended.err
    told = re.compile(rf"{case.state}:? +.*{case.reason}", re.DOTALL)
    title, box = re.split(r"\n(done[^\n]*)\n", ended.out)[1:]
    assert title == ("done" if case.state is VERIFIED else f"done, {case.state}")
    assert box.lstrip().startswith(case.state), box
    assert told.search(box)
    assert bool(told.search(ended.err)) is (case.code != 0)
    path = ended.result
    with open_result(path) as result:
        assert result.verdict.state is case.state
        assert re.search(case.reason, result.verdict.reason)
        assert repr(result).startswith(f"<Result, {case.state}: jacobian of ")
        recorded = result.execution["verification"]
    assert (recorded["state"], bool(recorded["state_reason"])) == (case.state, True)

    again = command_line(*of(case.function, *case.options))
    assert again.code == case.code
    assert again.out.startswith(f"{case.state}: ")
    assert "finished already" in again.out
    required = command_line(*of(case.function, *case.options), "verify.required=true")
    assert (required.code, required.result) == (case.required, path)
    assert ("verify.required=true: " in required.err) is (case.required != 0)

    capfd.readouterr()
    assert verify([str(path)]) == case.state.exit_code
    assert re.search(rf"result .*{case.state}: ", capfd.readouterr().out)
    assert verify(["--json", str(path)]) == case.state.exit_code
    (figures,) = json.loads(capfd.readouterr().out)
    assert figures["state"] == case.state
    assert figures["ok"] is True
    assert show.main([str(path)]) == 0
    assert re.search(rf"Result *\n.*\n.*verification .*{case.state}: ", capfd.readouterr().out)
    assert report_main(["runs", "--no-comparison", "--html", "page.html"]) == 0
    assert re.search(rf"\n│ {path.parent.name} +│ {case.state} ", capfd.readouterr().out)
    cell = f'<td style="color: {case.state.colour}">{case.state}</td>'
    assert cell in Path("page.html").read_text()
    assert status.main(["runs"]) == 0
    table = capfd.readouterr().out
    assert f"1 jobs: 1 finished; results: 1 {case.state}" in table
    assert re.search(rf"{path.parent.name} +│ finished +│ {case.state} ", table)


@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: case.state.value)
@pytest.mark.usefixtures("functions")
def test_a_picture_tells_the_state(case: Case, command_line: Run) -> None:
    figures = pytest.importorskip("outputs._reading.presentation.figures")
    from outputs._reading.presentation.matrix_statistics import survey

    path = command_line(*of(case.function, *case.options)).result
    with open_result(path) as result:
        title: Any = figures.draw(result, survey(result), None)._suptitle
    assert title.get_text().startswith(f"{case.state}: Jacobian of ")
    assert title.get_color() == case.state.colour
    assert plot([str(path), "-o", "picture.png"]) == 0


@pytest.mark.usefixtures("functions")
def test_the_group_requires_a_verified_result(command_line: Run) -> None:
    assert command_line(*of("right"), "verify=require").code == 0
    ended = command_line(*of("nan_in_a_row"), "verify=require")
    assert ended.code == 3
    assert "is partly verified: 4 rows agree" in ended.err
    with open_result(ended.result) as result:
        assert result.verdict.state is PARTLY


@pytest.mark.usefixtures("functions")
def test_a_contradiction_is_shown_before_the_first_block(command_line: Run) -> None:
    ended = command_line(*of("through_numpy"))
    lines = ended.out.splitlines()
    (warned,) = (n for n, line in enumerate(lines) if line.startswith("contradicted: function="))
    assert warned < next(n for n, line in enumerate(lines) if " of 4 rows (" in line)
    quiet = command_line(*of("through_numpy"), "progress=quiet", "runs=quiet")
    assert quiet.out.splitlines() == [str(quiet.result)]
    assert quiet.err.startswith("contradicted: function=")
    events = command_line(*of("through_numpy"), "progress=json", "runs=json").out.splitlines()
    found = {event["event"]: event for event in map(json.loads, events)}
    assert list(found)[:2] == ["plan", "warning"]
    assert list(found)[-2:] == ["done", "failed"]
    assert found["done"]["state"] == "contradicted"


@pytest.mark.usefixtures("functions")
def test_a_plan_of_what_is_contradicted_says_so_and_writes_nothing(command_line: Run) -> None:
    ended = command_line(*of("through_numpy"), "plan=true")
    assert ended.code == 5
    assert "the derivative gives" in ended.err
    assert not list(Path("runs").rglob("*.h5*"))


@pytest.mark.usefixtures("functions")
def test_the_other_jobs_of_a_sweep_run(command_line: Run, directory: Path) -> None:
    names = "function.target=./own.py:through_numpy,./own.py:right"
    ended = command_line("--multirun", *of("right"), names)
    assert ended.code == 5
    states = []
    for path in sorted(directory.glob("runs/*/result.h5")):
        with open_result(path) as result:
            states.append(result.verdict.state)
    assert sorted(states) == [CONTRADICTED, VERIFIED]


@pytest.mark.usefixtures("functions")
def test_a_contradicted_result_is_replaced_where_the_option_says_so(command_line: Run) -> None:
    first = command_line(*of("frozen"))
    left_out = command_line(*of("frozen"), "verify.differences=false")
    assert (first.code, left_out.code) == (5, 5)
    assert "overwrite=true computes it again" in left_out.err
    again = command_line(*of("frozen"), "verify.differences=false", "overwrite=true")
    assert (again.code, again.result) == (0, first.result)


@pytest.mark.parametrize(
    ("name", "state", "code"), [("right", VERIFIED, 0), ("through_numpy", CONTRADICTED, 5)]
)
def test_many_points(
    name: str, state: VerificationState, code: int, functions: Path, command_line: Run
) -> None:
    np.save(functions / "points.npy", np.linspace(0.5, 2.0, 12).reshape(3, 4))
    given = ("inputs=numpy", "inputs.path=points.npy", "points=leading")
    options = [each for each in of(name) if not each.startswith("inputs")]
    ended = command_line(*options, *given)
    assert ended.code == code
    with open_result(ended.result) as result:
        assert result.verdict.state is state
        assert repr(result).startswith(f"<Result, {state}: jacobian of")
    assert verify([str(ended.result)]) == code


def shards_of(command_line: Run, name: str, first: str = "", second: str = "") -> list[Any]:
    parts = ((f"shard={n}/2", *filter(None, [more])) for n, more in enumerate((first, second)))
    return [command_line(*of(name), *part) for part in parts]


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(
    # A virtual file has its state by the same code as another one.
    ("name", "second", "state", "virtual"),
    [
        ("right", "", VERIFIED, []),
        ("kinks", "", PARTLY, ["--virtual"]),
        ("right", "verify=off", NOT, []),
        ("right", "verify=sample", PARTLY, ["--virtual"]),
        ("frozen", "", CONTRADICTED, []),
        ("frozen", "verify.differences=false", CONTRADICTED, ["--virtual"]),
    ],
)
def test_a_merged_result_is_as_weak_as_its_weakest_shard(
    name: str, second: str, state: VerificationState, virtual: list[str], command_line: Run
) -> None:
    shards = shards_of(command_line, name, "", second)
    assert [each.code for each in shards] == [
        5 if each else 0 for each in (state is CONTRADICTED, (name, second) == ("frozen", ""))
    ]
    assert merge.main([*(str(each.result) for each in shards), "-o", "whole.h5", *virtual]) == 0
    with open_result("whole.h5") as result:
        assert result.verdict.state is state
        reason = result.verdict.reason
    assert ("differences inconclusive" in reason) is (name == "kinks")
    assert state is VERIFIED or reason.startswith("shard ")
    assert verify(["whole.h5"]) == state.exit_code
    # The worst of several files counts.
    assert verify(["whole.h5", str(shards[0].result)]) == state.exit_code


@pytest.mark.parametrize(
    ("name", "options", "state", "code"),
    [
        ("right", (), VERIFIED, 0),
        ("right", ("verify=off",), NOT, 0),
        ("frozen", (), CONTRADICTED, 5),
        ("frozen", ("verify.differences=false",), VERIFIED, 0),
    ],
)
def test_sparse_results(
    name: str,
    options: tuple[str, ...],
    state: VerificationState,
    code: int,
    functions: Path,
    command_line: Run,
) -> None:
    np.save(functions / "long.npy", np.linspace(0.5, 2.0, 300))
    given = [each for each in of(name) if not each.startswith(("inputs", "strategy"))]
    job = (*given, "inputs=numpy", "inputs.path=long.npy", "sparsity=auto", *options)
    ended = command_line(*job)
    assert ended.code == code, ended.err
    with open_sparse_result(ended.result) as result:
        assert result.verdict.state is state
        assert repr(result).startswith(f"<SparseResult, {state}: jacobian of")
    assert re.split(r"\ndone[^\n]*\n", ended.out)[-1].lstrip().startswith(state)
    assert verify([str(ended.result)]) == state.exit_code
    assert show.main([str(ended.result)]) == 0
    assert plot([str(ended.result)]) == 0
    assert report_main(["runs"]) == 0
    again = command_line(*job, "verify.required=true")
    assert again.code == state.exit_code
    assert again.out.startswith(f"{state}: ")


@pytest.mark.usefixtures("functions", "in_order")
@pytest.mark.parametrize(
    ("first", "second", "state", "reason"),
    [
        ("probe", "probe", VERIFIED, "4 rows agree"),
        ("off", "probe", VERIFIED, "4 rows agree"),
        ("probe", "off", NOT, "verify=off"),
        ("sample", "sample", PARTLY, "a sample of"),
    ],
)
def test_lines_of_an_earlier_run_count_where_they_are_compared(
    first: str,
    second: str,
    state: VerificationState,
    reason: str,
    run_job: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compute = local_source.compute_block

    def until_the_second(job: Any, stream: Any, check: Any, lines: range) -> Any:
        if lines.start == 2:
            raise JobError("interrupted")
        return compute(job, stream, check, lines)

    monkeypatch.setattr(local_source, "compute_block", until_the_second)
    with pytest.raises(JobError, match="interrupted"):
        run_job(*of("right", f"verify={first}", "chunk_size=2"))
    monkeypatch.setattr(local_source, "compute_block", compute)
    result = run_job(*of("right", f"verify={second}", "chunk_size=2"))
    assert result.execution["lines_resumed"] == 2
    assert result.verdict.state is state
    assert re.search(reason, result.verdict.reason)


@pytest.mark.usefixtures("functions", "in_order")
def test_a_wrong_line_of_an_earlier_run_ends_the_job(
    run_job: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = local_source.compute_block

    def wrong_until_the_second(job: Any, stream: Any, check: Any, lines: range) -> Any:
        if lines.start == 2:
            raise JobError("interrupted")
        block, error, not_finite = compute(job, stream, check, lines)
        wrong = tuple(piece + 1 for piece in block.pieces)
        return dataclasses.replace(block, pieces=wrong), error, not_finite

    monkeypatch.setattr(local_source, "compute_block", wrong_until_the_second)
    with pytest.raises(JobError, match="interrupted"):
        run_job(*of("right", "chunk_size=2"))
    monkeypatch.setattr(local_source, "compute_block", compute)
    with pytest.raises(JobError, match=r"with 2 of 4 rows computed.* rows 0 to 2 do not multiply"):
        run_job(*of("right", "chunk_size=2"))
    assert not list(Path("runs").rglob("result.h5"))
