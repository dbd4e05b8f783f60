"""How the chunk size of a running job changes with what its blocks take."""

from collections.abc import Callable

import pytest

from jobs.errors import JobError
from jobs.execution.chunk_size import ChunkSize
from jobs.machine.memory import Budget

BUDGET = Budget(2**30, "as a test has it")


def sizes_of_a_run(
    seconds_of_a_line: Callable[[int], float], size: int, largest: int | None, lines: int
) -> tuple[list[int], ChunkSize]:
    """The sizes of all blocks of a run, and what computed them."""
    chunks = ChunkSize(size, BUDGET, print, largest=largest)
    taken = []
    while lines:
        count = min(chunks.size, lines)
        lines -= count
        taken.append(count)
        chunks.learn(count, count * seconds_of_a_line(count), lines)
    return taken, chunks


def test_chunks_grow_while_lines_get_cheaper() -> None:
    taken, chunks = sizes_of_a_run(lambda size: 1 / size, 4, 256, 10_000)
    assert chunks.used == [4, 16, 64, 256]
    assert taken[:5] == [4, 4, 16, 64, 256]
    assert chunks.size == max(taken) == 256


def test_a_chunk_that_disappoints_twice_is_taken_back() -> None:
    """Even if still larger ones would be faster: they are not tried."""
    taken, chunks = sizes_of_a_run(
        lambda size: {4: 3.0, 8: 1.0, 16: 1.0, 64: 2.0}[size], 4, 10**6, 976
    )
    assert chunks.used == [4, 16, 64, 16]
    assert taken == [4, 4, 16, 64, 64, *[16] * 51, 8]


def test_a_chunk_that_disappoints_once_is_measured_again() -> None:
    line = iter([1.0, 1.0, 5.0, 0.5, *[0.5] * 100])
    taken, chunks = sizes_of_a_run(lambda size: next(line), 4, 16, 200)
    assert chunks.used == [4, 16]
    assert taken[2:] == [16] * 12


def test_a_block_that_is_little_faster_does_not_count() -> None:
    _, chunks = sizes_of_a_run(lambda size: 1.0 if size == 4 else 0.97, 4, 16, 1000)
    assert chunks.used == [4, 16, 4]


@pytest.mark.parametrize(
    ("size", "largest", "lines"),
    [
        (4, None, 1000),
        (4, 4, 1000),
        (4, 15, 1000),
        # Two blocks of the larger size have to be left after two of this one.
        (4, 64, 8 + 2 * 16 - 1),
    ],
)
def test_chunks_do_not_grow_beyond_what_is_given(
    size: int, largest: int | None, lines: int
) -> None:
    _, chunks = sizes_of_a_run(lambda size: 1 / size, size, largest, lines)
    assert chunks.used == [size]


def test_after_memory_has_run_out_chunks_do_not_grow_any_more() -> None:
    said: list[str] = []
    chunks = ChunkSize(4, BUDGET, said.append, largest=64)
    chunks.learn(4, 1.0, 1000)
    chunks.learn(4, 1.0, 1000)
    assert chunks.size == 16
    chunks.halve(8, "rows", "no memory")
    for _ in range(5):
        chunks.learn(8, 1e-9, 1000)
    assert chunks.used == [4, 16, 8]
    assert said == ["out of memory at rows 8 (no memory); continuing with 8 at a time"]


def test_a_single_line_that_does_not_fit_is_an_error() -> None:
    chunks = ChunkSize(1, BUDGET, print)
    with pytest.raises(JobError, match="out of memory with one of the columns at a time"):
        chunks.halve(3, "columns", "no memory")
