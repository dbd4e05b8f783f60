"""Sizes and durations as text with units."""

from __future__ import annotations

import re

_UNITS = {
    "B": 1,
    **{f"{letter}B": 1000 ** (power + 1) for power, letter in enumerate("kMGT")},
    **{f"{letter}iB": 1024 ** (power + 1) for power, letter in enumerate("KMGT")},
}
_SIZE = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(_UNITS)})")


def parse_size(text: str) -> int:
    """Return the number of bytes of a size such as ``8GiB``, ``512MiB`` or ``4.5GB``.

    Raises:
        ValueError: The text is not a size, or the size is zero.
    """
    found = _SIZE.fullmatch(text.strip())
    count = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    if not count:
        raise ValueError(f"{text!r} is not a size")
    return count


def size(count: int) -> str:
    """Return a number of bytes as text, in SI units with three digits."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}"


def duration(seconds: float) -> str:
    """Return a time span, given in seconds, as text."""
    if 0 < seconds < 1e-4:
        return f"{seconds * 1e6:.3g} µs"
    if 0 < seconds < 0.1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
