"""Measured times leave out how long other programs occupied the processor."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import torch

from jobs.machine import measurement
from jobs.machine.contention import longest_delay, run_delays
from jobs.machine.measurement import timing


@pytest.fixture
def busy_processor() -> Iterator[None]:
    """Leave a single processor to this thread and to two other programs that compute."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
        os.sched_setaffinity(0, before)


@pytest.mark.skipif(not run_delays(), reason="the system keeps no statistics of its scheduler")
def test_the_time_in_which_others_compute_is_left_out(busy_processor: None) -> None:
    started, computed = time.perf_counter(), time.thread_time()
    with timing(torch.device("cpu")) as found:
        while time.thread_time() - computed < 0.3:
            pass
    clock = time.perf_counter() - started
    assert found.waited > 0.2
    assert found.seconds + found.waited == pytest.approx(clock, abs=0.05)
    assert found.seconds == pytest.approx(0.3, abs=0.1)


def test_sleep_is_no_delay() -> None:
    with timing(torch.device("cpu")) as found:
        time.sleep(0.2)
    assert found.seconds + found.waited >= 0.2
    assert found.seconds > 0.1


def test_delays_of_threads_do_not_add_up() -> None:
    before = {"1": (0.0, 1.0), "2": (3.0, 5.0)}
    after = {"1": (1.0, 1.5), "2": (4.0, 5.25), "3": (1.0, 0.125)}
    assert longest_delay(before, after) == 0.5
    assert longest_delay({}, {}) == 0.0


def test_a_thread_that_hardly_computes_delays_nothing() -> None:
    before = {"1": (1.0, 0.0), "2": (0.0, 0.0)}
    after = {"1": (1.5, 0.25), "2": (0.01, 3.0)}
    assert longest_delay(before, after) == 0.25


def test_no_time_in_which_this_thread_computes_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "longest_delay", lambda before, after: 3.0)
    computed = time.thread_time()
    with timing(torch.device("cpu")) as found:
        while time.thread_time() - computed < 0.1:
            pass
    assert found.seconds >= 0.09
