"""Blocks that planning has measured are blocks of the result."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from autodiff_core import Axis, Block, BlockStream, blocks
from jobs.execution.block_sources import Remaining
from jobs.execution.chunk_size import ChunkSize
from jobs.job import Job
from jobs.machine.memory import Budget
from jobs.planning import search
from jobs.planning.candidate import Candidate
from jobs.planning.thresholds import THRESHOLDS
from jobs.planning.trials import measure_chunk
from jobs.streams.kept import forget_kept, keep, kept_lines
from jobs.streams.single import SingleStream
from jobs.streams.stream import StreamFacts, start_of_trial
from outputs import Result

Resolve = Callable[..., Job]
FACTS = StreamFacts(Axis.ROWS, (10, 3), torch.float64, 1, True)


def stream(operation: str = "jacobian", strategy: str = "vectorize") -> SingleStream:
    def cubes(x: torch.Tensor) -> torch.Tensor:
        return (x**3).cumsum(0) if operation == "jacobian" else (x**3).sum() * x[0]

    x = torch.arange(1.0, 11, dtype=torch.float64)
    return SingleStream(blocks(cubes, x, operation=operation, strategy=strategy))


@pytest.mark.parametrize(
    ("kept", "taken"),
    [
        ([], [(0, 4), (4, 5), (7, 10)]),
        ([range(2)], [(0, 2), (2, 5), (7, 10)]),
        ([range(8, 10)], [(8, 10), (0, 4), (4, 5), (7, 8)]),
        ([range(7, 8), range(8, 10)], [(7, 8), (8, 10), (0, 4), (4, 5)]),
        # Whatever the size of a chunk is.
        ([range(7, 10)], [(7, 10), (0, 4), (4, 5)]),
        ([range(5)], [(0, 5), (7, 10)]),
        # Lines that were committed before do not miss.
        ([range(4, 6)], [(0, 4), (4, 5), (7, 10)]),
    ],
)
def test_blocks_that_are_kept_come_first(kept: list[range], taken: list[tuple[int, int]]) -> None:
    chunks = ChunkSize(4, Budget(2**30, "as a test has it"), print)
    remaining = Remaining([range(5), range(7, 10)], chunks, FACTS, kept)
    assert remaining.lines == 8
    assert [(each.start, each.stop) for each in iter(remaining.take, None)] == taken


def test_a_block_that_could_not_be_kept_is_computed_in_chunks() -> None:
    chunks = ChunkSize(2, Budget(2**30, "as a test has it"), print)
    remaining = Remaining([range(8)], chunks, FACTS, [range(4)])
    taken = remaining.take()
    assert taken is not None
    assert taken == range(4)
    remaining.put_back(taken)
    assert [(each.start, each.stop) for each in iter(remaining.take, None)] == [
        (0, 2),
        (2, 4),
        (4, 6),
        (6, 8),
    ]


def test_a_block_is_kept_once() -> None:
    derivative = stream()
    block = derivative.block(2, 4)
    marked = replace(block, pieces=tuple(piece + 1 for piece in block.pieces))
    keep(derivative, marked)
    assert kept_lines(derivative) == [range(2, 4)]
    torch.testing.assert_close(derivative.block(2, 4).values, marked.values)
    torch.testing.assert_close(derivative.block(2, 4).values, block.values)
    keep(derivative, marked)
    forget_kept(derivative)
    assert kept_lines(derivative) == []
    torch.testing.assert_close(derivative.block(2, 4).values, block.values)


def test_a_part_of_a_block_that_is_kept_is_taken_once() -> None:
    derivative = stream()
    block = derivative.block(2, 8)
    marked = replace(block, pieces=tuple(piece + 1 for piece in block.pieces))
    keep(derivative, marked)
    torch.testing.assert_close(derivative.block(4, 6).values, marked.values[2:4])
    assert kept_lines(derivative) == [range(2, 4), range(6, 8)]
    torch.testing.assert_close(derivative.block(4, 6).values, block.values[2:4])
    # Lines that are kept in part are computed.
    torch.testing.assert_close(derivative.block(5, 8).values, block.values[3:])
    torch.testing.assert_close(derivative.block(6, 8).values, marked.values[4:])
    assert kept_lines(derivative) == [range(2, 4)]


def test_kept_columns_of_a_hessian_are_its_rows() -> None:
    columns = stream("hessian", "forward-mode")
    keep(columns, block := columns.block(2, 4))
    rows = columns.rows_by_symmetry()
    assert kept_lines(rows) == [range(2, 4)]
    kept = rows.block(2, 4)
    assert kept.axis is Axis.ROWS
    torch.testing.assert_close(kept.values, block.values.T)
    torch.testing.assert_close(rows.block(2, 4).values, kept.values)


@pytest.mark.parametrize(
    ("size", "starts"), [(1, [5, 6]), (2, [4, 6]), (3, [3, 6]), (4, [4, 0]), (7, [0, 0])]
)
def test_the_chunks_that_are_measured_are_those_of_the_run(size: int, starts: list[int]) -> None:
    assert [start_of_trial(stream(), size, number) for number in range(2)] == starts


@pytest.fixture
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a program is recorded depends on times: here none is."""
    never = replace(THRESHOLDS, share_to_record=0.0, seconds_to_record_anyway=0.0)
    monkeypatch.setattr(search, "THRESHOLDS", never)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """The lines of all blocks that are computed."""
    found: list[range] = []
    compute = BlockStream.block

    def block(self: BlockStream, start: int, stop: int) -> Block:
        found.append(range(start, stop))
        return compute(self, start, stop)

    monkeypatch.setattr(BlockStream, "block", block)
    return found


def test_a_chunk_of_all_lines_is_computed_each_time_that_it_is_measured(
    resolved: Resolve, computed: list[range]
) -> None:
    job = resolved("op=jacobian", "strategy=vectorize", "function=rosenbrock", "function.n=10")
    candidate = Candidate("vectorize", stream=stream())
    for number in range(2):
        measure_chunk(job, candidate, 10, number=number)
    assert computed == 2 * [range(10)]
    assert kept_lines(candidate.stream) == [range(10)]


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode", "reverse-loop", "forward-loop"])
@pytest.mark.parametrize("operation", ["jacobian", "hessian"])
def test_a_job_computes_each_line_of_a_given_chunk_once(
    resolved: Resolve,
    run_job: Callable[..., Result],
    computed: list[range],
    operation: str,
    strategy: str,
) -> None:
    function = {"jacobian": "burgers", "hessian": "rosenbrock"}[operation]
    chosen = f"op={operation}", f"strategy={strategy}", f"function={function}"
    job = resolved(*chosen, "function.n=100", "chunk_size=4")
    result = run_job(job)
    of_chunks = [each for each in computed if len(each) == 4]
    assert sorted(line for each in of_chunks for line in each) == list(range(100))
    derivative = getattr(torch.func, {"jacobian": "jacrev", "hessian": "hessian"}[operation])
    expected = derivative(job.function.function)(*job.first_point)
    np.testing.assert_allclose(result[...], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("unrecorded")
def test_what_planning_measures_last_is_not_computed_again(
    run_job: Callable[..., Result], resolved: Resolve, computed: list[range]
) -> None:
    chosen = "op=jacobian", "function=burgers", "strategy=vectorize", "compile=never"
    job = resolved(*chosen, "function.n=400")
    result = run_job(job)
    sizes = [len(each) for each in computed]
    last = computed[: sizes.index(max(sizes)) + 1][-1]
    assert computed.count(last) == 1
    expected = torch.func.jacrev(job.function.function)(*job.first_point)
    np.testing.assert_allclose(result[...], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("unrecorded")
@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
def test_larger_blocks_than_were_chosen_are_not_computed_again(
    strategy: str,
    run_job: Callable[..., Result],
    resolved: Resolve,
    computed: list[range],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "choose_chunk", lambda *given: (16, "as a test has it"))
    chosen = "op=jacobian", "function=burgers", f"strategy={strategy}", "compile=never"
    job = resolved(*chosen, "function.n=400")
    result = run_job(job)
    kept = max(computed, key=len)
    # A single line is recomputed to compare it.
    after = [each for each in computed[computed.index(kept) + 1 :] if len(each) > 1]
    assert len(kept) > 16
    assert sorted([*kept, *(line for each in after for line in each)]) == list(range(400))
    assert max(map(len, after), default=16) == 16
    expected = torch.func.jacrev(job.function.function)(*job.first_point)
    np.testing.assert_allclose(result[...], expected, rtol=1e-10, atol=1e-10)
