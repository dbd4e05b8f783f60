"""Print a line that may contain text from files."""

from __future__ import annotations

import sys
from typing import TextIO


def print_line(text: object, file: TextIO | None = None) -> None:
    """Print a text with its control characters made visible.

    Args:
        text: What is printed.
        file: The stream; None takes standard error.
    """
    line = str(text)
    if not line.replace("\n", "").isprintable():
        # Loads h5py, which the messages about options must not wait for.
        from outputs import printable

        line = printable(line)
    print(line, file=file or sys.stderr)
