"""What can go wrong in the functional core, and how a slower way is told."""

from __future__ import annotations

import re
from dataclasses import dataclass


class FallbackWarning(UserWarning):
    """A derivative was computed by a slower way than the one that was asked for."""


class MissingForwardDerivativeError(NotImplementedError):
    """The function contains an operator that has no forward derivative."""


class DoubleBackwardError(RuntimeError):
    """The double-backward trick gives wrong numbers for this function."""


class NotHolomorphicError(RuntimeError):
    """A complex function of complex inputs has no derivative as one complex matrix."""


@dataclass(frozen=True)
class Fallback:
    """The record of a slower way that was taken.

    Attributes:
        strategy: The strategy that was asked for.
        instead: What was done in its place.
        reason: Why, in one line.
    """

    strategy: str
    instead: str
    reason: str

    def __str__(self) -> str:
        """One sentence for people."""
        return f"{self.strategy}: {self.instead}, because {self.reason}"


def first_line(error: BaseException) -> str:
    """The first line of an exception's text with its type, for one-line messages."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of torch means that an allocation failed.

    CUDA has an exception type of its own; the allocator for host memory raises a bare
    RuntimeError that only its text tells apart.
    """
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def missing_forward_derivative(error: BaseException, strategy: str) -> BaseException:
    """Turn torch's many texts for a missing forward derivative into one clear error.

    Args:
        error: What torch raised while a tangent was pushed forward.
        strategy: The strategy that was running.

    Returns:
        A `MissingForwardDerivativeError` when that is what happened, else `error` itself.
    """
    text = str(error)
    operator = re.search(r"forward AD with (\S+) that does not support it", text)
    if operator:
        culprit = f"the operator {operator.group(1)} has no forward derivative"
    elif "implement the jvp function for custom autograd.Function" in text:
        culprit = "a custom autograd.Function in it defines no jvp"
    else:
        return error
    return MissingForwardDerivativeError(
        f"strategy {strategy!r} cannot push tangents through this function: {culprit}; "
        "the strategies 'reverse-loop' and 'vectorize' need none"
    )
