"""Draw random arrays from a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from jobs.errors import ConfigurationError, unknown

Layout = tuple[tuple[int, ...], torch.dtype]
"""The shape and the dtype of an array."""

DISTRIBUTIONS = ("normal", "uniform")


def draw(
    layouts: Mapping[str, Layout],
    distribution: str,
    scale: float,
    seed: int,
    option: str,
) -> dict[str, np.ndarray]:
    """Draw arrays from a generator of their own, the same for every dtype up to rounding.

    Args:
        layouts: Name to shape and dtype; the dtype decides between real and complex numbers.
        distribution: ``normal`` (mean 0, deviation 1) or ``uniform`` (from 0 to 1).
        scale: The factor that all numbers are multiplied with.
        seed: The seed of the generator.
        option: The option that the arrays are for, for messages.

    Returns:
        Name to array, of float64 or complex128.

    Raises:
        ConfigurationError: The distribution is unknown or the seed is out of range.
    """
    if distribution not in DISTRIBUTIONS:
        raise unknown(f"{option}.distribution", distribution, DISTRIBUTIONS)
    if not 0 <= seed < 2**63:
        raise ConfigurationError(f"{option}.seed={seed}: valid is an integer from 0 to 2^63 - 1")
    generator = np.random.default_rng(seed)
    sample: Callable[[tuple[int, ...]], np.ndarray]
    sample = generator.standard_normal if distribution == "normal" else generator.random
    drawn = {}
    for name, (shape, dtype) in layouts.items():
        values = np.asarray(sample(shape))
        if dtype.is_complex:
            values = values + 1j * np.asarray(sample(shape))
        drawn[name] = np.asarray(scale * values)
    return drawn
