"""What the names of the strategies mean to a job."""

from __future__ import annotations

from collections.abc import Mapping

# The strategy that computes line by line what another computes in batches.
LOOPS = {"vectorize": "reverse-loop", "forward-mode": "forward-loop"}
# Strategies that push tangents forward and give columns; the others pull back and give rows.
FORWARD = ("forward-mode", "forward-loop")
# All, in the order in which ``auto`` considers them.
# Opening reverse mode takes one evaluation; forward mode compares itself with reverse mode first.
STRATEGIES = ("vectorize", "forward-mode", "reverse-loop", "forward-loop")


def strategies_of(*, is_from_left: bool) -> tuple[str, ...]:
    """Return the strategies that can compute an operation.

    Args:
        is_from_left: Whether it is a product from the left, which only reverse mode computes.
    """
    return tuple(each for each in STRATEGIES if not (is_from_left and each in FORWARD))


def none_is_left(reasons: Mapping[str, str], culprits: Mapping[str, str]) -> str:
    """Return the message that each strategy has failed.

    Args:
        reasons: The name of each strategy, and why it has failed.
        culprits: For some of them, what in the function is the reason, as a clause. Where the
            strategies fail for different reasons, each has a line of its own.
    """
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(culprits.get(name) or reason.partition("\n")[0], []).append(name)
    if len(names) == 1:
        return next(iter(reasons.values()))
    lines = [f"  {', '.join(each)}: {reason}" for reason, each in names.items()]
    return "\n".join(["no strategy can compute this job:", *lines])
