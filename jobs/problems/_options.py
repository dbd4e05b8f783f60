"""Checks of the options that the builders share."""

from __future__ import annotations

import torch

__all__ = ["check_size", "seeded_generator"]


def check_size(option: str, value: int, minimum: int = 1) -> None:
    """Refuse a size below the smallest that makes sense.

    Args:
        option: The builder's argument, such as ``n``.
        value: What was given for it.
        minimum: The smallest valid value.

    Raises:
        ValueError: ``value`` is no integer or less than ``minimum``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(
            f"function.{option}={value!r} is not valid: it must be an integer of at least"
            f" {minimum}."
        )


def seeded_generator(seed: int) -> torch.Generator:
    """Return a CPU generator of its own, so that the global random state stays untouched.

    Args:
        seed: An integer from 0 to 2^63 - 1.

    Raises:
        ValueError: ``seed`` is no such integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(
            f"function.seed={seed!r} is not valid: it must be an integer from 0 to 2^63 - 1."
        )
    return torch.Generator().manual_seed(seed)
