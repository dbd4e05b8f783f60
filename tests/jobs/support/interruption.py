"""Interrupt a job between two of its blocks."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from outputs import ResultWriter


@contextmanager
def interrupted_after(blocks: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the job in the body be interrupted, which it must be, when so many blocks are written."""
    written: list[int] = []
    write = ResultWriter.write

    def write_some(self: ResultWriter, start: int, stop: int, values: np.ndarray) -> None:
        if len(written) == blocks:
            raise KeyboardInterrupt
        written.append(start)
        write(self, start, stop, values)

    with monkeypatch.context() as patched:
        patched.setattr("outputs._writing.background._BYTES_AT_ONCE", 1)
        patched.setattr(ResultWriter, "write", write_some)
        with pytest.raises(KeyboardInterrupt):
            yield
