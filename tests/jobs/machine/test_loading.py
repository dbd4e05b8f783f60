"""Modules are loaded without the collector of cyclic garbage."""

import gc
import sys

import pytest

from jobs.machine.loading import loading_modules


@pytest.fixture
def before_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("before_torch")
def test_the_collector_waits_and_then_leaves_out_what_was_loaded():
    gc.unfreeze()
    with loading_modules():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


@pytest.mark.usefixtures("before_torch")
def test_an_error_while_loading_leaves_the_collector_on():
    with pytest.raises(ImportError), loading_modules():
        raise ImportError
    assert gc.isenabled()


def test_what_a_job_before_has_left_is_collected(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", sys)
    gc.unfreeze()
    with loading_modules():
        assert gc.isenabled()
    assert gc.get_freeze_count() == 0
