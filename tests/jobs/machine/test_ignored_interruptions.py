"""A signal that arrives where Python ignores exceptions ends the job all the same."""

import signal
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from jobs.machine.interruption import Interrupted, leaving_after_a_block, leaving_at_once
from outputs._commands import run_command


class Thing:
    """An object that a weak reference can refer to."""


class Interrupting:
    """An object that is interrupted while it is deleted."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def in_a_callback() -> None:
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
    del thing
    assert reference() is None


def in_a_deletion() -> None:
    Interrupting()


@pytest.fixture(params=[in_a_callback, in_a_deletion])
def interrupt(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Return a function that is interrupted where Python ignores it."""
    return request.param


def compute_on() -> None:
    time.sleep(10)


def test_a_job_ends_at_once(interrupt: Callable[[], None]) -> None:
    def job() -> None:
        with leaving_at_once():
            interrupt()
            compute_on()

    with pytest.raises(Interrupted) as caught:
        job()
    assert caught.value.exit_code == 130


def test_a_second_signal_ends_the_block(interrupt: Callable[[], None]) -> None:
    def job() -> None:
        with leaving_after_a_block() as leave:
            interrupt()
            assert leave.is_asked()
            # Signals in quick succession count as one.
            time.sleep(0.3)
            interrupt()
            compute_on()

    with pytest.raises(Interrupted):
        job()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C raise `KeyboardInterrupt`; processes of pytest-xdist ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_command_of_outputs_ends(interrupt: Callable[[], None]) -> None:
    def command() -> int:
        interrupt()
        compute_on()
        return 0

    assert run_command(command) == 130
