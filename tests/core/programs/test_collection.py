"""Recording leaves Python's collector of garbage as it was."""

import gc

import pytest

from autodiff_core import blocks
from tests.core.support.cases import draw


@pytest.mark.parametrize("is_enabled", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_collector_waits_and_is_switched_on_again(is_enabled, fails):
    seen = []

    def function(x):
        seen.append(gc.isenabled())
        return x.sin() * (x.sum().item() if fails else 2)

    before = gc.isenabled()
    try:
        (gc.enable if is_enabled else gc.disable)()
        stream = blocks(
            function, draw(6), operation="jacobian", strategy="forward-mode", engine="captured"
        )
        stream.matrix()
        assert gc.isenabled() == is_enabled
    finally:
        (gc.enable if before else gc.disable)()
    assert False in seen
