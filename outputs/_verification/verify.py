"""Verify that a file is complete and holds the computed values, without the function."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from outputs._errors import ResultError
from outputs._reading.result import Result
from outputs._reading.sparse_result import is_sparse_result
from outputs._verification.dense import check_blocks, check_header
from outputs._verification.report import Verification
from outputs._verification.sparse import verify_sparse


def verify_result(path: str | os.PathLike[str]) -> Verification:
    """Check structure, ledger, checksums and probe products, in one pass over the file.

    Defects of the file raise no exception; they are listed in ``problems``. A file whose HDF5
    metadata are damaged can crash the process inside HDF5; ``python -m outputs.verify`` is safe
    from that.

    Args:
        path: A result, finished or unfinished.
    """
    return verify(Path(path).absolute(), lambda: None)


def verify(path: Path, opened: Callable[[], object]) -> Verification:
    """Check a file as `verify_result` does.

    Args:
        path: A result, finished or unfinished.
        opened: Called once the structure of the file has been read.
    """
    started = time.monotonic()
    facts: dict[str, Any]
    try:
        if is_sparse_result(path):
            return replace(verify_sparse(path, opened), seconds=time.monotonic() - started)
        with Result(path) as result:
            facts = check_header(result)
            opened()
            facts |= check_blocks(result, facts["problems"])
    except ResultError as error:
        facts = {"problems": (str(error),)}
    except (OSError, MemoryError) as error:
        facts = {"problems": (f"{path} cannot be read: {error or 'out of memory'}.",)}
    return Verification(str(path), **facts, seconds=time.monotonic() - started)
