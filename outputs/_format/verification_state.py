"""What is known of the numbers in a file: the states of verification and the rule behind them.

The rule is a function of figures that a file records, so that the job which writes a file and the
commands which read one tell the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class VerificationState(StrEnum):
    """How far the numbers of a result are verified, from the best to the worst."""

    VERIFIED = "verified"
    PARTLY = "partly verified"
    NOT_VERIFIED = "not verified"
    CONTRADICTED = "contradicted"

    @property
    def exit_code(self) -> int:
        """The exit code of commands that judge by the state: 0, 3, 4 or 5."""
        return {"verified": 0, "partly verified": 3, "not verified": 4, "contradicted": 5}[self]

    @property
    def style(self) -> str:
        """The colour on a terminal, as rich spells it."""
        return {
            "verified": "green",
            "partly verified": "yellow",
            "not verified": "red",
            "contradicted": "bold red",
        }[self]

    @property
    def colour(self) -> str:
        """The colour on white paper, as #rrggbb: in pictures and pages."""
        return {
            "verified": "#1b7f3b",
            "partly verified": "#a66f00",
            "not verified": "#c0392b",
            "contradicted": "#c0392b",
        }[self]


@dataclass(frozen=True)
class Verdict:
    """A state with its reason.

    Attributes:
        state: The state.
        reason: What was compared and how it went, or why nothing was.
    """

    state: VerificationState
    reason: str

    def __str__(self) -> str:
        """Return state and reason as one line."""
        return f"{self.state}: {self.reason}"

    def record(self) -> dict[str, str]:
        """Return what the record of a verification keeps."""
        return {"state": self.state.value, "state_reason": self.reason}


def weakest(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict with the worst state; the first of several.

    Args:
        verdicts: At least one.
    """
    order = list(VerificationState)
    return max(verdicts, key=lambda one: order.index(one.state))


def covering(checked: int, lines: int, agreeing: str, why_not: str) -> Verdict:
    """Return the verdict on lines of which some were compared and agree.

    Args:
        checked: How many lines were compared.
        lines: How many there are.
        agreeing: What agrees, and how well, as the end of a sentence.
        why_not: Why the others were not compared.
    """
    if not lines:
        return Verdict(VerificationState.NOT_VERIFIED, "the matrix has no entries")
    if not checked:
        return Verdict(VerificationState.NOT_VERIFIED, why_not)
    if checked < lines:
        reason = f"{checked} of {lines} {agreeing}; {why_not}"
        return Verdict(VerificationState.PARTLY, reason)
    return Verdict(VerificationState.VERIFIED, f"{lines} {agreeing}")


def figures_verdict(
    figures: Mapping[str, Any],
    differences: Sequence[Mapping[str, Any]],
    lines: int,
    axis: str = "lines",
) -> Verdict:
    """Return the verdict that the figures of a check and of the differences give.

    A contradiction outweighs every check: the check compares derivatives with one another. Where
    the differences conclude nothing, what no derivative sees is not excluded, and the result is
    verified in part only.

    Args:
        figures: The figures of the check: `kind`, and with ``probe`` the numbers of
            `lines_checked` and `lines_without_finite_product`.
        differences: The figures of each comparison with differences, with its `state`.
        lines: The number of lines that the check should have compared.
        axis: What the lines are called.
    """
    beside = differences_summary(differences)
    if any(one.get("state") == "contradicted" for one in differences):
        return Verdict(VerificationState.CONTRADICTED, beside)
    checked = _check_verdict(figures, lines, axis)
    state = checked.state
    is_open = any(one.get("state") == "inconclusive" for one in differences)
    if is_open and state is VerificationState.VERIFIED:
        state = VerificationState.PARTLY
    return Verdict(state, "; ".join(filter(None, (checked.reason, beside))))


def differences_summary(differences: Sequence[Mapping[str, Any]]) -> str:
    """Return how the comparisons with differences went, the worst only; empty without any."""
    for state, words in (
        ("contradicted", "contradicted by finite differences: "),
        ("inconclusive", "differences "),
        ("agree", ""),
    ):
        found = [one for one in differences if one.get("state") == state]
        if found:
            texts = (str(one.get("summary") or f"{state}: {one.get('reason')}") for one in found)
            text = "; ".join(dict.fromkeys(texts))
            return words + text if words else "finite differences of the function agree"
    return ""


def recorded_verdict(execution: Mapping[str, Any], lines: int, axis: str) -> Verdict:
    """Return the verdict that a file records, or that follows from the figures of an older one.

    Args:
        execution: The execution record.
        lines: The number of lines of the block axis in the file.
        axis: What they are called.
    """
    figures = execution.get("verification")
    if not isinstance(figures, Mapping) or not figures:
        return Verdict(VerificationState.NOT_VERIFIED, "the file records no verification")
    stated = figures.get("state")
    if stated is not None:
        if stated not in list(VerificationState):
            reason = f"the file records the unknown state {stated!r}"
            return Verdict(VerificationState.NOT_VERIFIED, reason)
        return Verdict(VerificationState(stated), str(figures.get("state_reason", "")))
    differences = execution.get("differences")
    listed = differences if isinstance(differences, list) else []
    return figures_verdict(figures, [d for d in listed if isinstance(d, Mapping)], lines, axis)


def _check_verdict(figures: Mapping[str, Any], lines: int, axis: str) -> Verdict:
    kind, reason = figures.get("kind"), str(figures.get("reason") or "")
    if kind == "sample":
        return _sample_verdict(figures, reason)
    if kind != "probe":
        return Verdict(VerificationState.NOT_VERIFIED, reason or "nothing was compared")
    checked, without = (
        _count(figures.get(name)) for name in ("lines_checked", "lines_without_finite_product")
    )
    agreeing = f"{axis} agree with an independent product{_accuracy(figures)}"
    missing = []
    if without:
        missing.append(f"{without} {axis} have no finite independent product")
    # A job that is resumed compares what it computes itself.
    if checked + without < lines:
        missing.append(f"{lines - checked - without} {axis} were not compared by the last run")
    return covering(checked, lines, agreeing, "; ".join(missing))


def _sample_verdict(figures: Mapping[str, Any], reason: str) -> Verdict:
    rows, columns = (
        len(listed) if isinstance(listed := figures.get(name), list) else 0
        for name in ("rows", "columns")
    )
    if not rows + columns or figures.get("lines_compared") == 0:
        return Verdict(VerificationState.NOT_VERIFIED, reason or "no row or column was compared")
    text = (
        f"a sample of {rows} rows and {columns} columns agrees with another strategy"
        f"{_accuracy(figures)}"
    )
    return Verdict(VerificationState.PARTLY, "; ".join(filter(None, (text, reason))))


def _accuracy(figures: Mapping[str, Any]) -> str:
    error, bound = figures.get("largest_relative_error"), figures.get("tolerance")
    if not isinstance(error, int | float) or not isinstance(bound, int | float):
        return ""
    return f", largest relative error {error:.1e} (tolerance {bound:.1e})"


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
