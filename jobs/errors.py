"""The errors that end a job with one message for the user, and the exit codes of commands."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

EXIT_FAILED = 1
# The exit codes of a finished result that is not verified are those of `outputs.verify`.
EXIT_PARTLY_VERIFIED = 3
EXIT_NOT_VERIFIED = 4
EXIT_CONTRADICTED = 5
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class JobError(Exception):
    """A job cannot start or continue; the text is one message for the user.

    The only argument is the message, so that the error can be pickled and raised again in another
    process.

    Attributes:
        exit_code: The exit code of the program.
    """

    exit_code = EXIT_FAILED

    def _render_traceback_(self) -> list[str]:
        """Return the lines that a notebook shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ConfigurationError(JobError):
    """An option has a value that is not valid, or the options do not fit together."""


class OutOfMemoryError(JobError):
    """An allocation failed, in the memory of the host or of a device."""


class StrategyError(JobError):
    """A strategy cannot compute the job, or computes it wrong; another one may compute it.

    Attributes:
        strategy: The name of the strategy.
        is_wrong: Whether it gave numbers that failed the check.
    """

    def __init__(self, message: str, strategy: str = "", *, is_wrong: bool = False) -> None:
        """Keep the message, the strategy and what is wrong with it."""
        super().__init__(message)
        self.strategy = strategy
        self.is_wrong = is_wrong


@contextmanager
def failing_strategy(strategy: str) -> Iterator[None]:
    """Attribute a failure in the body to a strategy, unless memory or the options are the cause.

    Raises:
        StrategyError: The body raised a `JobError`.
    """
    try:
        yield
    except (OutOfMemoryError, StrategyError, ConfigurationError):
        raise
    except JobError as error:
        raise StrategyError(str(error), strategy) from error


def causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes; the errors of a user may be causes of one another."""
    seen: list[BaseException] = []
    while error is not None and not any(error is each for each in seen):
        yield error
        seen.append(error)
        error = error.__cause__


def culprit_of(error: BaseException) -> str:
    """Return what in the function an error or one of its causes names; empty if none does."""
    named = (getattr(each, "culprit", "") for each in causes_of(error))
    return next((str(culprit) for culprit in named if culprit), "")


class PartlyVerifiedError(JobError):
    """The result is finished, and only a part of it is verified where all of it must be."""

    exit_code = EXIT_PARTLY_VERIFIED


class NotVerifiedError(JobError):
    """The result is finished, and not verified where it must be."""

    exit_code = EXIT_NOT_VERIFIED


class ContradictedError(JobError):
    """The result is finished, and the function contradicts its numbers."""

    exit_code = EXIT_CONTRADICTED


def resource_failure(error: OSError | MemoryError) -> str:
    """Return one line about a file that cannot be used, or memory that is not there."""
    if isinstance(error, MemoryError):
        return f"out of memory: {error}" if str(error) else "out of memory"
    return f"{error.filename or 'input or output'}: {error.strerror or error}"


def text_of(error: BaseException) -> str:
    """Return the text of an exception; empty for one of the user's whose text raises another."""
    try:
        return str(error)
    except Exception:
        return ""


def unknown(option: str, value: object, valid: Iterable[str]) -> ConfigurationError:
    """Return the error for a value that is none of the valid choices.

    Args:
        option: The option as the user spells it.
        value: The given value.
        valid: The valid values.
    """
    choices = list(valid)
    hint = did_you_mean(str(value), choices)
    return ConfigurationError(f"{option}={value}: valid are {', '.join(choices)}{hint}")


def unknown_option(option: str, valid: Iterable[str]) -> ConfigurationError:
    """Return the error for an option that does not exist.

    Args:
        option: The given option, with its path.
        valid: The options that exist in that place, with their paths.
    """
    choices = list(valid)
    return ConfigurationError(
        f"there is no option {option}; valid are {', '.join(choices) or 'none'}"
        + did_you_mean(option, choices)
    )


def did_you_mean(value: str, choices: Iterable[str]) -> str:
    """Return the end of a message that suggests the nearest choice; empty if none is near."""
    nearest = difflib.get_close_matches(value, list(choices), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
