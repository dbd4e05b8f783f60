"""The outcomes of differentiating a resisting function, strategy by strategy."""

from dataclasses import dataclass

from autodiff_core import (
    DoubleBackwardError,
    MissingForwardDerivativeError,
    MissingReverseDerivativeError,
)


@dataclass(frozen=True)
class Slower:
    """The numbers are right, and a fallback is reported."""

    instead: str


@dataclass(frozen=True)
class Refused:
    """The operation raises one clear error."""

    kind: type[Exception]
    words: tuple[str, ...]


Outcome = Slower | Refused | None
"""The outcome under a strategy; None if it works without a fallback."""


Outcomes = dict[str, Outcome]

FORWARD = ("forward-loop", "forward-mode")

REVERSE = ("reverse-loop", "vectorize")


def refuses(kind: type[Exception], *words: str, strategies: tuple[str, ...] = FORWARD) -> Outcomes:
    return dict.fromkeys(strategies, Refused(kind, words))


def no_forward(culprit: str) -> Outcomes:
    return refuses(MissingForwardDerivativeError, culprit, "'reverse-loop' and 'vectorize'")


def neither(forward: str, reverse: str) -> Outcomes:
    """Return the outcome of a Hessian that no strategy can compute; each says so."""
    words = ("no strategy can", forward, reverse)
    return refuses(MissingForwardDerivativeError, *words) | refuses(
        MissingReverseDerivativeError, *words, strategies=REVERSE
    )


LOOPED: Outcomes = {"vectorize": Slower("one vector at a time")}

LOOPED_FORWARD: Outcomes = {"forward-mode": Slower("one vector at a time")}

LOOPED_INSIDE: Outcomes = {"vectorize": Slower("a loop inside one operator")}

NO_REENTRANT = refuses(RuntimeError, "use_reentrant=False", strategies=REVERSE + FORWARD)

NO_DOUBLE_BACKWARD = refuses(
    DoubleBackwardError, "custom autograd.Function", "differentiable", strategies=REVERSE
)

FLASH = "_scaled_dot_product_flash_attention_for_cpu"
