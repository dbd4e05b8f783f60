"""What the program tells a person when a job cannot go on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class JobError(Exception):
    """A job cannot start or go on; the text is one message for the user.

    The only argument is the message, so that the error survives pickling on its way back from
    another process.
    """


class ConfigurationError(JobError):
    """An option has a value that is not valid, or the options do not fit together."""


class OutOfMemoryError(JobError):
    """An allocation failed, of the host's memory or of a device's."""


def unknown(option: str, value: object, valid: Iterable[str]) -> ConfigurationError:
    """The error for a value that is none of the valid choices.

    Args:
        option: The option as the user spells it.
        value: What was given.
        valid: What could have been given.
    """
    choices = list(valid)
    hint = did_you_mean(str(value), choices)
    return ConfigurationError(f"{option}={value}: valid are {', '.join(choices)}{hint}")


def unknown_option(option: str, valid: Iterable[str]) -> ConfigurationError:
    """The error for an option that does not exist.

    Args:
        option: What was given, with its path.
        valid: The options that stand there, with theirs.
    """
    choices = list(valid)
    return ConfigurationError(
        f"there is no option {option}; valid are {', '.join(choices) or 'none'}"
        + did_you_mean(option, choices)
    )


def did_you_mean(value: str, choices: Iterable[str]) -> str:
    """The end of a message that suggests the nearest choice; nothing where none is near."""
    nearest = difflib.get_close_matches(value, list(choices), n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""
