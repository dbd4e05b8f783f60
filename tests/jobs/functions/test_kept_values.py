"""Tests of looking through what a function holds."""

import importlib

import pytest
import torch

from jobs.functions.kept_values import KeptValues


class _Hostile(tuple):
    """A tuple whose methods raise, as the irreducible representations of e3nn do."""

    def _refuse(self, *args):
        raise NotImplementedError

    __len__ = __contains__ = __getitem__ = __iter__ = _refuse


class _Layer(torch.nn.Module):
    def __init__(self, held):
        super().__init__()
        self.held = held

    def forward(self, x):
        return x.square()


@pytest.mark.parametrize("container", [tuple, _Hostile])
def test_that_a_cache_is_seen_through_a_tuple_of_any_class(container):
    cache = []
    kept = KeptValues(_Layer(container([cache])))
    assert not kept.is_changed()
    cache.append(torch.ones(2))
    assert kept.is_changed()
    with kept.forgotten():
        assert not cache
    assert len(cache) == 1


def test_that_a_warning_shown_is_nothing_kept(tmp_path, monkeypatch):
    (tmp_path / "warns.py").write_text(
        "import warnings\ndef f(x):\n    warnings.warn('rough', stacklevel=1)\n    return x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    warns = importlib.import_module("warns")
    kept = KeptValues(warns.f)
    with pytest.warns(UserWarning, match="rough"):
        warns.f(1)
    assert "__warningregistry__" in vars(warns)
    assert not kept.is_changed()
