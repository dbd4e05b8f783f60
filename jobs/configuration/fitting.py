"""Refuse options that do not fit one another."""

from __future__ import annotations

from jobs.errors import ConfigurationError


def require_all_fit(given: str, options: dict[str, bool], valid: str) -> None:
    """Refuse the first of some options that does not fit what is given.

    Args:
        given: The option that others have to fit, with its value.
        options: Whether each of the others, with its value, fits.
        valid: What would fit, in words.

    Raises:
        ConfigurationError: One does not.
    """
    for option, fits in options.items():
        if not fits:
            raise ConfigurationError(f"{given} {option}: {valid}")
