"""Compute the CRC-32 of data from the CRC-32 of its pieces, which threads compute separately."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# Both compute the same CRC-32; ISA-L does so at memory speed, but not on every platform.
try:
    from isal.isal_zlib import crc32 as crc32
except ImportError:
    from zlib import crc32 as crc32

# The polynomial of CRC-32 (IEEE 802.3) with its bits reflected, as in zlib.
_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31  # the polynomial 1, reflected


def combine(first: int, second: int, length: int) -> int:
    """Return the CRC-32 of two pieces together, as zlib's ``crc32_combine`` does.

    Args:
        first: CRC-32 of the first piece.
        second: CRC-32 of the second piece.
        length: Length of the second piece in bytes.
    """
    return _multiply(_shift(length), first) ^ second


@lru_cache(maxsize=64)
def _shift(length: int) -> int:
    """Return x to the power of the number of bits, modulo the polynomial."""
    power, square, bits = _ONE, _ONE >> 1, 8 * length
    while bits:
        if bits & 1:
            power = _multiply(power, square)
        square = _multiply(square, square)
        bits >>= 1
    return power


def _multiply(a: int, b: int) -> int:
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = (a << 1) & 0xFFFFFFFF
        b = b >> 1 ^ _POLYNOMIAL if b & 1 else b >> 1
    return product


def crc32_of_array(values: np.ndarray) -> int:
    """Return the CRC-32 of the bytes of a contiguous array."""
    return crc32(values.view(np.uint8).data) if values.size else 0
