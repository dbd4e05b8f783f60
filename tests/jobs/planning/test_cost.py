"""The arithmetic of chunks: what fits, what is fastest, and how lines divide."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.planning.cost import BLOCKS_IN_FLIGHT, Costs, Trial, even_chunk

MB = 10**6


def costs(*trials: tuple[int, float, int], **changes) -> Costs:
    fields = {"strategy": "vectorize", "lines": 1000, "line_bytes": 8000, "is_loop": False}
    found = Costs(**(fields | changes))
    for trial in trials:
        found = found.with_trial(Trial(*trial))
    return found


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_even_chunks_cover_the_lines_and_differ_little(wanted: int, lines: int) -> None:
    size = even_chunk(wanted, lines)
    assert 1 <= size <= min(wanted, lines)
    # Aligned chunks may leave a shorter last one; others are as even as integers allow.
    blocks = math.ceil(lines / size)
    if size % 16:
        assert blocks * size - lines < blocks
    assert blocks <= math.ceil(lines / min(wanted, lines)) + (size % 16 == 0)


@given(st.integers(0, 10**7))
def test_the_ladder_begins_with_one_line_and_ends_with_all(lines: int) -> None:
    sizes = costs(lines=lines).ladder()
    assert sizes[0] == 1
    assert sizes[-1] == max(1, lines)
    assert sizes == sorted(set(sizes))


def test_the_peak_grows_by_what_was_measured_between_the_largest_chunks() -> None:
    # Up to 16 lines the peak is hidden in what the process holds anyway.
    found = costs((1, 1.0, 300 * MB), (16, 2.0, 300 * MB), (64, 8.0, 396 * MB))
    waiting = BLOCKS_IN_FLIGHT * 8000
    assert found.peak_bytes(64) == 396 * MB + 64 * waiting
    assert found.peak_bytes(164) == 596 * MB + 164 * waiting
    assert found.peak_bytes(1) == 300 * MB + waiting


def test_one_block_is_copied_from_a_device_while_the_next_is_computed() -> None:
    found = costs((1, 1.0, MB), (4, 1.0, 4 * MB), on_host=False)
    assert found.peak_bytes(4) == 4 * MB + 4 * 8000
    assert found.peak_bytes(1000) == 1000 * MB  # there is no other block
    assert replace(found, opening_bytes=9 * MB).peak_bytes(4) == 9 * MB


def test_the_first_chunk_verifies_its_batching_which_later_ones_do_not() -> None:
    found = costs((1, 3.0, 9 * MB), (1, 1.0, 2 * MB), (5, 2.0, 6 * MB), (5, 1.0, 0))
    assert found.trials == (Trial(1, 1.0, 2 * MB), Trial(5, 1.0, 6 * MB))
    assert found.line_memory == MB


@given(
    st.lists(st.tuples(st.floats(1e-4, 1e-2), st.integers(0, 10**6)), min_size=1, max_size=5),
    st.integers(1, 10**9),
)
def test_the_best_chunk_fits_and_none_that_fits_is_much_faster(measured, budget: int) -> None:
    sizes = [4**power for power in range(len(measured))]
    trials = [(k, k * s, 10**7 + k * m) for k, (s, m) in zip(sizes, measured, strict=True)]
    found = costs(*trials)
    best = found.best_chunk(budget)
    fitting = [size for size in sizes if found.peak_bytes(size) <= budget]
    if not fitting:
        assert best is None
        return
    assert best is not None
    assert best in fitting
    assert found.seconds(best) <= 1.05 * min(map(found.seconds, fitting))


@pytest.mark.parametrize("seconds", [1e-5, 1e-3, 1.0])
def test_blocks_of_a_loop_are_as_small_as_the_writer_allows(seconds: float) -> None:
    found = costs((1, seconds, MB), (4, 4 * seconds, MB), is_loop=True)
    best = found.best_chunk(10**9)
    assert best is not None
    # A millisecond for each block and writing the last one, eight for all of them, must not be
    # felt, and a stop must not wait long.
    assert found.seconds(best) <= 1.06 * 1000 * seconds + 6e-3
    assert best * seconds <= 10 or best == 1


def test_a_chunk_that_takes_too_long_is_not_chosen() -> None:
    found = costs((1, 9.0, MB), (4, 20.0, MB))
    assert found.best_chunk(10**9) == 1


@pytest.mark.parametrize(
    ("trials", "share"),
    [
        ([(1, 1.0)], 0.0),
        # Half as long a run as before: a quarter less may follow.
        ([(1, 1.0), (4, 2.0)], 0.75),
        ([(1, 1.0), (4, 4.0)], 1.0),
        # Larger chunks got slower, and nothing is promised.
        ([(1, 1.0), (4, 8.0)], 1.0),
        ([(1, 1.0), (4, 1.0), (16, 4.0)], 1.0),
    ],
)
def test_larger_chunks_promise_half_of_what_the_last_step_saved(trials, share: float) -> None:
    found = costs(*((size, seconds, MB) for size, seconds in trials))
    now = found.seconds(trials[-1][0])
    assert found.promised_seconds == pytest.approx(share * now, rel=1e-2, abs=1e-2)
