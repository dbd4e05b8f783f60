"""What a contradicted result tells its reader."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobs.verification.comparison import Comparison
from jobs.verification.verdict import contradiction


@pytest.mark.parametrize(
    ("derivative", "option"),
    [(1.0 + 8.6e-7, "verify.tolerance=9e-06"), (1.0 - 2e-4, "verify.tolerance=2e-03"), (1.5, "")],
)
def test_a_small_deviation_names_the_tolerance_that_accepts_it(
    derivative: float, option: str
) -> None:
    job: Any = SimpleNamespace(function=SimpleNamespace(reference="flow"))
    found = Comparison("contradicted", 1, derivative, difference=1.0, error=1e-9, scale=1.0)
    said = contradiction(cast(Any, job), [found])
    assert said.startswith("function=flow: along a random direction")
    assert (option in said) if option else ("verify.tolerance" not in said)
    assert "verify.differences=false" in said
