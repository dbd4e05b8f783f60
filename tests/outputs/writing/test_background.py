import os
import sys
import threading
import time

import numpy as np
import pytest

from outputs import BackgroundWriter, ResultError, ResultWriter, open_result


@pytest.fixture
def writer(describe, tmp_path):
    with ResultWriter.create(tmp_path / "r.h5", describe()) as writer:
        yield writer


def test_background_writes_everything_in_order(writer, entries):
    matrix = entries((12, 20), "float64")
    with BackgroundWriter(writer) as background:
        for row in range(12):
            background.submit(row, row + 1, matrix[row : row + 1])
    assert writer.missing() == []


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_background_writes_small_blocks_together(describe, entries, tmp_path, monkeypatch, axis):
    monkeypatch.setattr("outputs._writing.background._LONGEST_WAIT_SECONDS", 60)
    matrix = entries((12, 20), "float64")
    lines = [*range(6), 8, 9]
    together = []
    with ResultWriter.create(tmp_path / "r.h5", describe(axis=axis)) as writer:
        write = writer.write

        def watched(start, stop, values):
            together.append(range(start, stop))
            write(start, stop, values)

        monkeypatch.setattr(writer, "write", watched)
        with BackgroundWriter(writer) as background:
            for line in lines:
                block = matrix[line : line + 1] if axis == "rows" else matrix[:, line : line + 1]
                background.submit(line, line + 1, block)
    assert together == [range(6), range(8, 10)]
    with open_result(tmp_path / "r.h5", allow_partial=True) as result:
        stored = result[...] if axis == "rows" else result[...].T
    np.testing.assert_array_equal(stored[lines], (matrix if axis == "rows" else matrix.T)[lines])


def test_background_does_not_delay_a_caller_that_waits_for_a_block(writer, monkeypatch):
    monkeypatch.setattr("outputs._writing.background._LONGEST_WAIT_SECONDS", 600)
    with BackgroundWriter(writer) as background:
        for row in range(3):
            is_written = threading.Event()
            background.submit(row, row + 1, np.ones((1, 20)), is_written.set)
            assert is_written.wait(60)
    assert writer.missing() == [range(3, 12)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_background_lowers_the_priority_of_its_thread(writer, monkeypatch):
    def priority():
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    found = []
    monkeypatch.setattr(writer, "write", lambda *block: found.append(priority()))
    before = priority()
    with BackgroundWriter(writer) as background:
        background.submit(0, 1, np.ones((1, 20)))
    assert found[0] > before
    assert priority() == before


def _writing_threads(writer, monkeypatch, seconds=0.0):
    """Slow the writer down and return the list to which each write adds its thread's name."""
    write, found = writer.write, []

    def watched(*block):
        found.append(threading.current_thread().name)
        time.sleep(seconds)
        write(*block)

    monkeypatch.setattr(writer, "write", watched)
    return found


@pytest.mark.parametrize("shares_cores", [True, False])
def test_the_submitter_writes_if_the_computation_takes_all_cores(writer, monkeypatch, shares_cores):
    monkeypatch.setattr("outputs._writing.background._BYTES_AT_ONCE", 1)
    monkeypatch.setattr("outputs._writing.background._SECONDS_OF_A_FAST_WRITE", 600)
    found = _writing_threads(writer, monkeypatch)
    with BackgroundWriter(writer, shares_cores=shares_cores) as background:
        for row in range(12):
            background.submit(row, row + 1, np.ones((1, 20)))
    own = threading.current_thread().name
    assert found == [own if shares_cores else "result-writer"] * 12
    assert writer.missing() == []


def test_the_submitter_does_not_wait_for_a_slow_disk(writer, monkeypatch):
    monkeypatch.setattr("outputs._writing.background._BYTES_AT_ONCE", 1)
    found = _writing_threads(writer, monkeypatch, seconds=0.05)
    with BackgroundWriter(writer, shares_cores=True) as background:
        for row in range(12):
            background.submit(row, row + 1, np.ones((1, 20)))
    assert found == [threading.current_thread().name] + ["result-writer"] * 11
    assert writer.missing() == []


def test_an_interruption_of_a_writing_submitter_leaves_the_rest_missing(writer, monkeypatch):
    monkeypatch.setattr("outputs._writing.background._BYTES_AT_ONCE", 1)
    monkeypatch.setattr("outputs._writing.background._SECONDS_OF_A_FAST_WRITE", 600)

    def interrupted(self, blocks):
        raise KeyboardInterrupt

    def body():
        with BackgroundWriter(writer, shares_cores=True) as background:
            background.submit(0, 1, np.ones((1, 20)))
            monkeypatch.setattr(BackgroundWriter, "_write", interrupted)
            background.submit(1, 2, np.ones((1, 20)))

    with pytest.raises(KeyboardInterrupt):
        body()
    assert writer.missing() == [range(1, 12)]


def test_background_writes_what_was_submitted_before_a_failure(writer):
    def body():
        with BackgroundWriter(writer) as background:
            background.submit(0, 1, np.ones((1, 20)))
            background.submit(1, 2, np.ones((1, 20)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert writer.missing() == [range(2, 12)]


def test_background_raises_a_failed_write_in_submit(writer):
    submitted = []

    def body():
        with BackgroundWriter(writer) as background:
            background.submit(0, 1, np.ones((2, 20)))
            for row in range(1, 12):
                time.sleep(0.02)
                background.submit(row, row + 1, np.ones((1, 20)))
                submitted.append(row)

    with pytest.raises(ResultError, match="take"):
        body()
    assert len(submitted) < 11


def test_background_raises_a_failed_write_at_the_end(writer):
    with pytest.raises(ResultError, match="take"), BackgroundWriter(writer) as background:
        background.submit(0, 1, np.ones((2, 20)))


def test_background_notes_a_failed_write_beside_another_failure(writer):
    def body():
        with BackgroundWriter(writer) as background:
            background.submit(0, 1, np.ones((2, 20)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        body()
    assert "could not be written" in caught.value.__notes__[0]
