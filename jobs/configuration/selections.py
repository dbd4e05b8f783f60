"""The options `rows` and `columns`, which select lines of the matrix: what is valid to say.

A selection is a text of numbers and ranges (``0:300,500``), a file of numbers, or a mapping.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jobs.errors import ConfigurationError, unknown_option

FILES = (".npy", ".txt")
KEYS = ("lines", "tensor", "of", "index", "sample")

# So much of a value a message repeats: a mask has an entry for each line.
_LONGEST = 60
_NUMBER = re.compile(r"-?\d+")
_RANGE = re.compile(r"(-?\d*):(-?\d*)")
_VALID = (
    "valid are numbers and ranges such as 0:300 or [0:300,500], a .npy or .txt file of numbers, "
    "{0}.tensor=, {0}.of= with {0}.index=, or {0}.sample="
)


def checked_selection(option: str, value: Any) -> str | dict[str, Any] | None:
    """Return a selection in its plain form; None where all lines are meant.

    Args:
        option: ``rows`` or ``columns``.
        value: The value of the option.

    Raises:
        ConfigurationError: It is not valid, whatever the matrix.
    """
    if not isinstance(value, Mapping):
        return None if value is None else _lines(option, option, value)
    for key in value:
        if key not in KEYS:
            raise unknown_option(f"{option}.{key}", [f"{option}.{each}" for each in KEYS])
    given = {key: each for key, each in value.items() if each is not None}
    kinds = {"of" if key == "index" else key for key in given}
    if not given:
        return None
    if len(kinds) > 1 or ("of" in given) != ("index" in given):
        named = " ".join(f"{option}.{key}={given[key]}" for key in given)
        raise ConfigurationError(f"{named}: {_VALID.format(option)}, one of them alone")
    if "lines" in given:
        return _lines(option, f"{option}.lines", given["lines"])
    if "sample" in given:
        return {"sample": _count(option, given["sample"])}
    if "tensor" in given:
        return {"tensor": _names(option, given["tensor"])}
    if not isinstance(given["of"], str):
        raise ConfigurationError(f"{option}.of={given['of']}: valid is the name of one tensor")
    return {"of": given["of"], "index": _lines(option, f"{option}.index", given["index"])}


def ranges_of(option: str, text: str) -> list[tuple[int, int | None]]:
    """Return the ranges of a text of numbers; the stop of an open one is None.

    Raises:
        ConfigurationError: The text has another form, or a number is negative.
    """
    found = []
    for item in text.split(","):
        part = item.strip()
        both = _RANGE.fullmatch(part)
        if not both and not _NUMBER.fullmatch(part):
            raise ConfigurationError(f"{option}={item}: {_VALID.format(option.partition('.')[0])}")
        if "-" in part:
            raise ConfigurationError(
                f"{option}={item}: lines are counted from 0, and negative numbers are not valid"
            )
        if not both:
            found.append((int(part), int(part) + 1))
            continue
        start, stop = int(both[1] or 0), int(both[2]) if both[2] else None
        if stop is not None and stop <= start:
            raise ConfigurationError(f"{option}={item}: this range has no lines")
        found.append((start, stop))
    return found


def text_of_numbers(numbers: Iterable[int]) -> str:
    """Return numbers as a text, in which those that follow one another are ranges."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number:
            runs[-1][1] += 1
        else:
            runs.append([number, number + 1])
    return ",".join(str(a) if b == a + 1 else f"{a}:{b}" for a, b in runs)


def plain_selection(option: str, value: Any) -> Any:
    """Return a selection of a Python program as the options have it.

    Args:
        option: ``rows`` or ``columns``.
        value: What the options take, and slices, ranges and arrays of integers.

    Raises:
        ConfigurationError: A slice has a step.
    """
    if isinstance(value, Mapping):
        is_of_lines = ("lines", "index")
        return {k: _plain(f"{option}.{k}", v) if k in is_of_lines else v for k, v in value.items()}
    return {"lines": _plain(option, value)}


def is_file(text: str) -> bool:
    """Return whether a selection names a file of numbers."""
    return text.endswith(FILES)


def _plain(option: str, value: Any) -> Any:
    if isinstance(value, slice):
        if value.step not in (None, 1):
            raise ConfigurationError(f"{option}={value}: valid is a slice with step 1")
        return ":".join("" if each is None else str(each) for each in (value.start, value.stop))
    # Arrays of numpy and torch; a list of numbers may be long, and takes less as ranges.
    values = value.tolist() if hasattr(value, "tolist") else value
    is_list = isinstance(values, list | tuple | range)
    if is_list and values and all(type(each) is int for each in values):
        return text_of_numbers(values)
    return values


def _lines(option: str, path: str, value: Any) -> str:
    items = value if isinstance(value, list) else [value]
    # YAML reads true as a truth value, which is an integer in Python.
    if not items or not all(isinstance(x, int | str) and not isinstance(x, bool) for x in items):
        given = str(value)
        given = given if len(given) < _LONGEST else f"{given[:_LONGEST]} ..."
        raise ConfigurationError(f"{path}={given}: {_VALID.format(option)}")
    text = ",".join(map(str, items))
    if is_file(text):
        return os.path.expanduser(text)
    ranges_of(path, text)
    return text


def _count(option: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{option}.sample={value}: valid are integers from 1 on")
    return value


def _names(option: str, value: Any) -> list[str]:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(f"{option}.tensor={value}: valid is a name, or a list of names")
    return names
