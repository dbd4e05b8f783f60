"""The rule of the states, and what files of any age and content are called."""

import re
from typing import Any

import pytest

from outputs import Verdict, VerificationState, figures_verdict, weakest
from outputs._format.verification_state import recorded_verdict

VERIFIED, PARTLY, NOT, CONTRADICTED = VerificationState
PROBE = {"kind": "probe", "lines_checked": 4, "lines_without_finite_product": 0}
AGREE, OPEN, AGAINST = (
    {"state": state, "summary": f"seen {state}"}
    for state in ("agree", "inconclusive", "contradicted")
)


@pytest.mark.parametrize(
    ("figures", "differences", "lines", "state", "words"),
    [
        (PROBE, [], 4, VERIFIED, "4 rows agree"),
        (PROBE, [AGREE, AGREE], 4, VERIFIED, "finite differences of the function agree"),
        (PROBE, [AGREE, OPEN], 4, PARTLY, "differences seen inconclusive"),
        (PROBE, [AGREE, AGAINST], 4, CONTRADICTED, "seen contradicted"),
        ({"kind": "none", "reason": "why"}, [AGAINST], 4, CONTRADICTED, "seen contradicted"),
        (PROBE, [], 5, PARTLY, "4 of 5 rows agree.*1 rows were not compared by the last run"),
        (PROBE | {"lines_checked": 1, "lines_without_finite_product": 3}, [], 4, PARTLY, "1 of 4"),
        (PROBE | {"lines_checked": 0, "lines_without_finite_product": 4}, [AGREE], 4, NOT, "4 ro"),
        (PROBE | {"lines_checked": 0}, [], 0, NOT, "no entries"),
        ({"kind": "none", "reason": "verify=off"}, [], 4, NOT, "verify=off"),
        ({"kind": "none", "reason": "no route"}, [AGREE], 4, NOT, "no route; finite differences"),
        ({"kind": "sample", "rows": [1, 3], "columns": []}, [], 4, PARTLY, "2 rows and 0 col"),
        ({"kind": "sample", "rows": [], "columns": [], "reason": "why"}, [], 4, NOT, "why"),
        ({"kind": "sample", "rows": [1], "columns": [], "lines_compared": 0}, [], 4, NOT, "no row"),
    ],
)
def test_the_rule(
    figures: dict[str, Any],
    differences: list[dict[str, Any]],
    lines: int,
    state: VerificationState,
    words: str,
) -> None:
    found = figures_verdict(figures, differences, lines, "rows")
    assert found.state is state
    assert re.search(words, found.reason), found.reason
    # A file that records the state is called that, one without it what its figures say.
    of_before = {"verification": figures, "differences": differences}
    assert recorded_verdict(of_before, lines, "rows") == found
    recorded = {"verification": figures | Verdict(NOT, "as recorded").record()}
    assert recorded_verdict(recorded, lines, "rows") == Verdict(NOT, "as recorded")


@pytest.mark.parametrize(
    "execution",
    [
        {},
        {"verification": None},
        {"verification": "verified"},
        {"verification": {"kind": "probe"}},
        {"verification": {"kind": ["probe"], "lines_checked": 4}},
        {"verification": {"kind": "probe", "lines_checked": "4"}},
        {"verification": {"kind": "probe", "lines_checked": True}},
        {"verification": {"kind": "sample", "rows": 3, "columns": None}},
        {"verification": PROBE | {"state": "proven"}},
        {"verification": PROBE | {"state": ["verified"]}},
    ],
)
def test_a_record_that_says_nothing_verifies_nothing(execution: dict[str, Any]) -> None:
    assert recorded_verdict(execution, 4, "rows").state is NOT


@pytest.mark.parametrize("differences", ["agree", [None, 3], [{"state": ["contradicted"]}], None])
def test_differences_of_another_form_are_left_out(differences: Any) -> None:
    record = {"verification": PROBE, "differences": differences}
    assert recorded_verdict(record, 4, "rows").reason == "4 rows agree with an independent product"


def test_the_weakest_counts() -> None:
    verdicts = [Verdict(state, str(number)) for number, state in enumerate(VerificationState)]
    for count in range(1, 5):
        assert weakest(verdicts[:count]) is verdicts[count - 1]
        assert weakest([*verdicts[:count], Verdict(VERIFIED, "")]) is verdicts[count - 1]
    assert [state.exit_code for state in VerificationState] == [0, 3, 4, 5]
