"""Errors of the functional core, and the record of a fallback to a slower method."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class FallbackWarning(UserWarning):
    """A derivative was computed by a slower method than the requested one."""


class MissingForwardDerivativeError(NotImplementedError):
    """The function contains an operator without a forward derivative.

    Attributes:
        culprit: What has none, as a clause.
    """

    culprit: str = ""


class MissingReverseDerivativeError(NotImplementedError):
    """The function, or its gradient, contains an operator without a reverse derivative.

    Attributes:
        culprit: What has none, as a clause.
    """

    culprit: str = ""


class DoubleBackwardError(RuntimeError):
    """A backward pass in the function is not differentiable, so its derivatives would be wrong."""


class ModesDisagreeError(RuntimeError):
    """Forward mode and reverse mode give different derivatives of the function."""


class ChangingFunctionError(RuntimeError):
    """The function returns different values at the same point."""


class NotHolomorphicError(RuntimeError):
    """A complex function of complex inputs has no derivative as one complex matrix."""


@dataclass(frozen=True)
class Fallback:
    """The record of a slower method that replaced the requested one.

    Attributes:
        strategy: The name of the requested strategy.
        instead: What was done in its place.
        reason: The reason, in one line.
    """

    strategy: str
    instead: str
    reason: str

    def __str__(self) -> str:
        """Return the record as one sentence."""
        return f"{self.strategy}: {self.instead}, because {self.reason}"


def text_of(error: BaseException) -> str:
    """Return the text of an exception; empty for one of the user's whose text raises another."""
    try:
        return str(error)
    except Exception:
        return ""


_INTERNAL = re.compile(
    r"\S*\s?INTERNAL ASSERT FAILED at \W*(?:\S*/)?([\w.]+)\W*:(\d+)"
    r", please report a bug to PyTorch\.?"
)


def without_internals(text: str) -> str:
    """Return a message in which a failed assertion inside torch is said in plain words."""
    return _INTERNAL.sub(r"an internal check of torch failed (\1, line \2):", text).strip(" :")


def headline(error: BaseException) -> str:
    """Return the first line of an exception's text, and the next where a colon announces it."""
    lines = [line.strip() for line in without_internals(text_of(error)).splitlines()]
    first, *others = [line for line in lines if line] or [""]
    return f"{first} {others[0]}" if others and first.endswith(":") else first


def first_line(error: BaseException) -> str:
    """Return an exception's type and the `headline` of its text, for one-line messages."""
    return ": ".join(filter(None, (type(error).__name__, headline(error))))


# Messages of torch's allocator, and of libraries below torch whose allocations fail.
_OUT_OF_HOST_MEMORY = ("can't allocate memory", "std::bad_alloc", "Cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception means that a memory allocation failed.

    torch has an exception type for CUDA; for host memory it raises a RuntimeError that only its
    text distinguishes from others.

    Args:
        error: The exception.
    """
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = text_of(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in _OUT_OF_HOST_MEMORY)


@contextmanager
def explained(strategy: str) -> Iterator[None]:
    """Replace torch's messages about what cannot be differentiated by one clear error.

    Args:
        strategy: The name of the running strategy.

    Raises:
        MissingForwardDerivativeError: A tangent reached an operator or custom Function without a
            forward derivative.
        MissingReverseDerivativeError: A cotangent reached an operator without a reverse
            derivative.
        RuntimeError: A function that no strategy can differentiate; and, unchanged, any other
            RuntimeError raised inside.
    """
    try:
        yield
    except RuntimeError as error:
        clear = _explanation(error, strategy)
        if clear is None:
            raise
        raise clear from error


def _explanation(error: RuntimeError, strategy: str) -> RuntimeError | None:
    text = text_of(error)
    custom = _custom_function(error)
    if "use_reentrant=True" in text or custom == "CheckpointFunction":
        return RuntimeError(
            "this function calls torch.utils.checkpoint with use_reentrant=True, through which no "
            "strategy can differentiate; with use_reentrant=False all can"
        )
    forward = re.search(r"forward AD with (\S+) that does not support it", text)
    if forward:
        return _missing_forward(
            strategy, f"the operator {forward[1]} has no forward derivative{_hint(forward[1])}"
        )
    if "implement the jvp function for custom autograd.Function" in text:
        return _missing_forward(strategy, f"the custom autograd.Function {custom} defines no jvp")
    if "Nested forward mode AD is not supported" in text:
        return _missing_forward(strategy, "it, or another thread, uses torch's forward mode itself")
    if "ZeroTensors are immutable" in text:
        return _missing_forward(
            strategy,
            "the second derivative of an operator in it (that of mse_loss is one) fails "
            "in torch's forward mode where an argument is constant",
        )
    if "escaped from inside a function being vmapped" in text:
        return RuntimeError(
            f"strategy {strategy!r} cannot batch this function, which keeps gradients of its own "
            "(retain_grad, or backward inside it)"
        )
    if "implement either the backward or vjp method" in text:
        return _missing_reverse(
            strategy, f"the custom autograd.Function {custom} defines no backward"
        )
    reverse = re.search(r"derivative for '?(?:aten::)?(\w+)'? is not implemented", text)
    if reverse:
        return _missing_reverse(
            strategy, f"the operator {reverse[1]} has no reverse derivative{_hint(reverse[1])}"
        )
    return None


def forward_refusal(
    strategy: str, failure: Exception, no_reverse: Exception | None
) -> RuntimeError:
    """Return the error for a function that has a value, but through which no tangent passes.

    Args:
        strategy: The name of the strategy.
        failure: What pushing a tangent raised.
        no_reverse: What reverse mode raised; None if it works.
    """
    if isinstance(failure, ChangingFunctionError | MissingForwardDerivativeError):
        return failure
    clear = _explanation(failure, strategy) if isinstance(failure, RuntimeError) else None
    if clear is None:
        clear = _missing_forward(strategy, f"with tangents it raises {first_line(failure)!r}")
    if no_reverse is None or not isinstance(clear, MissingForwardDerivativeError):
        return clear
    reverse = (
        getattr(no_reverse, "culprit", "") or f"reverse mode raises {first_line(no_reverse)!r}"
    )
    error = MissingForwardDerivativeError(
        f"no strategy can differentiate this function: {clear.culprit}, and {reverse}"
    )
    error.culprit = clear.culprit
    return error


def _missing_forward(strategy: str, culprit: str) -> MissingForwardDerivativeError:
    error = MissingForwardDerivativeError(
        f"strategy {strategy!r} cannot push tangents through this function: {culprit}; the "
        "strategies 'reverse-loop' and 'vectorize' need a reverse derivative in its place"
    )
    error.culprit = culprit
    return error


def _missing_reverse(strategy: str, culprit: str) -> MissingReverseDerivativeError:
    error = MissingReverseDerivativeError(
        f"strategy {strategy!r} cannot pull cotangents through this function: {culprit}; the "
        "strategies 'forward-mode' and 'forward-loop' need a forward derivative of it in its place"
    )
    error.culprit = culprit
    return error


def _hint(operator: str) -> str:
    if "scaled_dot_product" not in operator:
        return ""
    return " (under torch.nn.attention.sdpa_kernel(SDPBackend.MATH) attention has all derivatives)"


def _custom_function(error: BaseException) -> str | None:
    """Return the name of the custom Function whose `apply` an exception passed through."""
    name = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        backward = getattr(frame.f_locals.get("self"), "_forward_cls", None)
        owner = frame.f_locals.get("cls", backward)
        if frame.f_code.co_name == "apply" and isinstance(owner, type):
            name = owner.__name__
    return name
