"""Open the result of a call, and say how far it is verified."""

from __future__ import annotations

import warnings
from pathlib import Path

import yaml

from jobs.verification.verdict import shortfall
from outputs import (
    Result,
    SparseResult,
    VerificationState,
    is_sparse_result,
    open_result,
    open_sparse_result,
)


class VerificationWarning(UserWarning):
    """A result is finished, and not all of it is verified."""


def opened(path: Path, *, is_shard: bool = False, frames: int = 1) -> Result | SparseResult:
    """Open a finished result.

    A result that is not, or only partly, verified comes with a `VerificationWarning`, unless its
    job was asked to verify nothing.

    Args:
        path: The file.
        is_shard: Whether it holds a part of a matrix.
        frames: How many frames above this function the warning belongs to.

    Raises:
        JobError: The result is contradicted, or not verified although its job requires it.
        ResultError: The file is damaged.
    """
    result = (
        open_sparse_result(path)
        if is_sparse_result(path)
        else open_result(path, allow_partial=is_shard)
    )
    verify = yaml.safe_load(result.configuration)["verify"]
    if error := shortfall(verify["required"], result.verdict, str(path)):
        result.close()
        raise error
    if result.verdict.state is not VerificationState.VERIFIED and verify["mode"] != "off":
        text = f"{path} is {result.verdict}"
        warnings.warn(text, VerificationWarning, stacklevel=frames + 2)
    return result
