"""Open a complete result, whichever kind of matrix it holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from outputs._reading.result import Result, open_result
from outputs._reading.sparse_result import SparseResult, is_sparse_result, open_sparse_result

AnyResult = Result | SparseResult


@contextlib.contextmanager
def opened(path: Path) -> Iterator[AnyResult]:
    """Open a complete result, dense or sparse, until the body ends.

    Raises:
        ResultError: As `open_result` and `open_sparse_result` do.
    """
    with open_sparse_result(path) if is_sparse_result(path) else open_result(path) as result:
        yield result
