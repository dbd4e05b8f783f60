"""What an agreement of differences shows of entries of little effect."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from jobs.verification.claims import Claim, Group, Measured
from jobs.verification.settlement import settled

COUNT = 2000
SMALL = 1e-9


class Lines:
    """A first line that a kink spoils, so that all entries but the first are moved once more."""

    def __init__(self, sum_of_effects: float, deviation: float) -> None:
        self._sum, self._deviation = sum_of_effects, deviation

    def measure(self, claim: Claim, group: Group, steps: int, exponent: float) -> Measured:
        parts = torch.full((COUNT,), SMALL, dtype=torch.float64)
        if group.members is None:
            parts[0] = 1
            return Measured(1, 1, 1 + 1e-6, 1e-6, 0, 1e-10, 0, parts)
        parts[0] = 0
        slope = self._sum * float(torch.linalg.vector_norm(parts))
        # The kinks make the estimate of the error larger than an entry.
        value = slope + self._deviation * SMALL
        return Measured(slope, abs(slope), value, 0.3 * SMALL, 0, 0.01, 0, parts)

    def is_rounding(self, claim: Claim, asked: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(asked)


@pytest.mark.parametrize("sum_of_effects", [1, 2, 4])
@pytest.mark.parametrize(("deviation", "unseen"), [(0.01, 0), (0.09, COUNT - 1)])
def test_how_much_is_left_of_a_sum_of_effects_is_chance(
    sum_of_effects: float, deviation: float, unseen: int
) -> None:
    entries = torch.ones(COUNT, dtype=torch.float64)
    claim = Claim(1, entries, lambda _: entries, 2.0**-52, entries, lambda _: entries)
    evaluations = SimpleNamespace(count=0)
    routes = cast(
        Any, SimpleNamespace(job=SimpleNamespace(tolerance=None), evaluations=evaluations)
    )
    found = settled(routes, cast(Any, Lines(sum_of_effects, deviation)), claim)
    assert found.state == "agree"
    assert found.unseen == unseen


def test_half_of_the_step_shows_what_a_bend_hides() -> None:
    class Bent(Lines):
        def measure(self, claim: Claim, group: Group, steps: int, exponent: float) -> Measured:
            self._deviation = 0.09 / 16 ** (steps - 1)
            return super().measure(claim, group, steps, exponent)

    entries = torch.ones(COUNT, dtype=torch.float64)
    claim = Claim(1, entries, lambda _: entries, 2.0**-52, entries, lambda _: entries)
    evaluations = SimpleNamespace(count=0)
    routes = cast(
        Any, SimpleNamespace(job=SimpleNamespace(tolerance=None), evaluations=evaluations)
    )
    assert settled(routes, cast(Any, Bent(1, 0.0)), claim).unseen == 0
