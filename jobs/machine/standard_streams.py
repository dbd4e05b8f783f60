"""Keep a job running whose output can no longer be read."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from typing import TextIO

_GONE = (errno.EIO, errno.ENXIO, errno.ENODEV)


def outlive_the_terminal() -> None:
    """Let neither closed streams nor a terminal that goes away end this process.

    A closed stream is opened on the null device: otherwise the next file that is opened gets its
    number, and whatever is printed would be written into a result. A hang-up is ignored, and what
    is printed to a terminal that is gone is dropped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, so this very one.
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = _outliving(sys.stdout, 1)
    sys.stderr = _outliving(sys.stderr, 2)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _outliving(stream: TextIO | None, number: int) -> TextIO:
    if stream is not None and not stream.isatty():
        return stream
    if stream is not None:
        stream.flush()
    encoding, errors = (stream.encoding, stream.errors) if stream else ("utf-8", "backslashreplace")
    raw = io.BufferedWriter(_Terminal(number, "w", closefd=False))
    return io.TextIOWrapper(raw, encoding, errors, line_buffering=True)


class _Terminal(io.FileIO):
    """A terminal that becomes the null device when it is gone."""

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # pyright: ignore[reportArgumentType]
        except OSError as error:
            if error.errno not in _GONE:
                raise
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        return super().write(data)  # pyright: ignore[reportArgumentType]
