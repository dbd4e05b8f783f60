"""Find the directory of a job among those of other jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs.paths import STATUS, RunPaths
from outputs import ResultError, is_sparse_result, open_result, open_sparse_result, part_path

# Of 64 digits; each run directory has as few as distinguish it from those that exist.
_DIGITS = (8, 16, 64)


def run_paths(
    runs: str,
    function: str,
    operation: str,
    strategy: str,
    fingerprint: str,
    shard: tuple[int, int] | None,
) -> RunPaths:
    """Return the paths of a job: in its earlier directory, or in one that no other job has.

    Args:
        runs: The option `runs`.
        function: The name of the function.
        operation: The operation.
        strategy: The strategy.
        fingerprint: The fingerprint of the job.
        shard: Index and count of the part that is computed; None for the whole matrix.
    """
    candidates = [
        RunPaths.of(runs, function, operation, strategy, fingerprint[:digits], shard)
        for digits in _DIGITS
    ]
    owners = [_owner(each) for each in candidates]
    free = next((c for c, o in zip(candidates, owners, strict=True) if not o), candidates[-1])
    earlier = (c for c, o in zip(candidates, owners, strict=True) if o == fingerprint)
    return next(earlier, free)


def fingerprint_of(path: Path) -> str:
    """Return the fingerprint of a result, finished or not; empty without a readable one."""
    try:
        opened: Any = (
            open_sparse_result(path)
            if is_sparse_result(path)
            else open_result(path, allow_partial=True)
        )
        with opened as result:
            return result.fingerprint
    except ResultError:
        return ""


def _owner(paths: RunPaths) -> str:
    """Return the fingerprint of the job whose directory this is; empty if it has none."""
    for path in dict.fromkeys((paths.whole, paths.result)):
        if (path.exists() or part_path(path).exists()) and (found := fingerprint_of(path)):
            return found
    statuses = [paths.run / STATUS, *paths.run.glob(f"shard-*/{STATUS}")]
    return next((found for found in map(_of_status, statuses) if found), "")


def _of_status(path: Path) -> str:
    if not path.is_file():  # a pipe would wait for a writer
        return ""
    try:
        return str(json.loads(path.read_bytes())["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
