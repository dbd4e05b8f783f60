"""Which arguments a function takes, and how tensors with names become its arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import Any, TypeVar

from torch.nn import Module

from jobs.errors import ConfigurationError, did_you_mean

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
Value = TypeVar("Value")


@dataclass(frozen=True)
class Signature:
    """The parameters of a function.

    Attributes:
        positional: The names of those that can be given by position, in order.
        positional_only: Those of them that cannot be given by name.
        keyword_only: The names of those that can only be given by name.
        required: The names of those without a default, in order.
        bound: The names of those that `function.keywords` sets.
        is_open: Whether it takes further arguments by any name (``**kwargs``).
        is_counted: Whether it takes a number of arguments that is known (no ``*args``).
    """

    positional: tuple[str, ...] = ()
    positional_only: tuple[str, ...] = ()
    keyword_only: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    bound: tuple[str, ...] = ()
    is_open: bool = False
    is_counted: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all parameters that a source may give, in order."""
        return tuple(n for n in (*self.positional, *self.keyword_only) if n not in self.bound)

    def takes(self, name: str) -> bool:
        """Return whether a source may give an argument of this name.

        A name that is nearly one of a parameter is a mistake, also where any name is taken.
        """
        if name in self.names:
            return True
        is_new = name.isidentifier() and name not in self.bound
        return self.is_open and is_new and not did_you_mean(name, self.names)

    def ordered(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return names in the order of the parameters; others follow as they are given."""
        given = list(names)
        if not self.is_counted:
            return tuple(given)
        known = [name for name in self.names if name in given]
        return (*known, *(name for name in given if name not in known))

    def split(self, names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return which arguments are given by position and which by name.

        Args:
            names: The names of all arguments, as `ordered` returns them.

        Raises:
            ConfigurationError: One can only be given by position, and one before it is missing.
        """
        if not self.is_counted:
            by_name = tuple(name for name in names if name in self.keyword_only)
            return tuple(name for name in names if name not in by_name), by_name
        count = next(
            (i for i, name in enumerate(self.positional) if name not in names),
            len(self.positional),
        )
        by_position = self.positional[:count]
        for name in self.positional_only[count:]:
            if name in names:
                raise ConfigurationError(
                    f"inputs: {name} can only be given by position, so {self.positional[count]} is "
                    "needed as well"
                )
        return by_position, tuple(name for name in names if name not in by_position)


def signature_of(function: Callable[..., Any]) -> Signature | None:
    """Return the parameters of a function or of the forward of a module; None if it tells none."""
    bound = function.keywords if isinstance(function, functools.partial) else {}
    if isinstance(function, Module):
        function = function.forward
    try:
        parameters = list(inspect.signature(function).parameters.values())
    # What has no signature; and an object of the user may answer any attribute with an error.
    except Exception:
        return None
    named = [p for p in parameters if p.kind in (*_POSITIONAL, Parameter.KEYWORD_ONLY)]
    return Signature(
        positional=tuple(p.name for p in named if p.kind in _POSITIONAL),
        positional_only=tuple(p.name for p in named if p.kind == Parameter.POSITIONAL_ONLY),
        keyword_only=tuple(p.name for p in named if p.kind == Parameter.KEYWORD_ONLY),
        required=tuple(p.name for p in named if p.default is Parameter.empty),
        bound=tuple(bound),
        is_open=any(p.kind == Parameter.VAR_KEYWORD for p in parameters),
        is_counted=all(p.kind != Parameter.VAR_POSITIONAL for p in parameters),
    )


def named_like_arguments(
    option: str,
    values: Mapping[str, Value],
    arguments: tuple[str, ...] | None,
    signature: Signature | None,
) -> dict[str, Value]:
    """Return values by the names of the arguments that they are for, in their order.

    Args:
        option: The option that the values come from, for messages.
        values: Name to value; a single one may have any name where one argument is needed.
        arguments: The names that are needed, in order; None if they are unknown.
        signature: All parameters of the function; None if they are unknown.

    Raises:
        ConfigurationError: One is missing, or the function takes no argument of such a name.
    """
    if arguments is None:
        if len(values) == 1 and "" in values:
            return {"input": values[""]}
        return {name: values[name] for name in (signature or Signature()).ordered(values)}
    takes = signature.takes if signature else arguments.__contains__
    if set(arguments) <= set(values) and all(takes(n) or n in arguments for n in values):
        order = [*(signature.ordered(values) if signature else ()), *arguments]
        return {name: values[name] for name in dict.fromkeys(order)}
    needed = list(arguments or (signature.positional[:1] if signature else ()))
    if len(values) == len(needed) == 1:
        ((name, value),) = values.items()
        # A single array may have any name, except that of another argument.
        if name == "" or (arguments and not (signature and name in signature.names)):
            return {needed[0]: value}
    given = ", ".join(name or "a single array" for name in values) or "nothing"
    raise ConfigurationError(
        f"{option}: the source holds {given}; {_needs(arguments, signature, values)}"
    )


def _needs(arguments: tuple[str, ...], signature: Signature | None, given: Container[str]) -> str:
    """Say what a function needs, and what it takes besides."""
    optional = [n for n in (signature.names if signature else ()) if n not in arguments]
    also = f"{', '.join(optional[:12])}{', ...' if optional[12:] else ''}"
    if not arguments:
        return f"the function takes {also or 'no arguments'}"
    # `loading` adds the labels of a loss to the arguments.
    missing = [n for n in arguments if n not in given]
    of_loss = [n for n in missing if signature and n not in signature.names]
    needs = f"the function needs {', '.join(n for n in arguments if n not in of_loss)}"
    needs = f"{needs} and takes {also}" if optional else needs
    return needs + "".join(
        f", and the loss needs {name} (loss.label={name}), which it takes after the output; a "
        "function that returns a loss itself, without labels, goes with loss=own"
        for name in of_loss
    )


def argument_names(
    arguments: tuple[str, ...] | None, count: int, signature: Signature | None = None
) -> tuple[str, ...]:
    """Return names for `count` arguments: the function's own names if they are known and fit."""
    if arguments is not None and len(arguments) == count:
        return arguments
    if arguments is not None and signature is not None and signature.is_counted:
        by_position = signature.positional[:count]
        if len(by_position) == count and {*arguments} <= {*by_position}:
            return by_position
    return ("input",) if count == 1 else tuple(f"input{index}" for index in range(count))
