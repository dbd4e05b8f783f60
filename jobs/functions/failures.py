"""Report failures inside the user's function as one message that points into their file."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from autodiff_core import is_out_of_memory
from jobs.errors import JobError, OutOfMemoryError, text_of
from jobs.functions.loading import LoadedFunction
from jobs.functions.ragged import RaggedFunction
from jobs.functions.tracebacks import error_with_frames, frames_of_user, one_line
from jobs.machine.launchers import is_of_launcher

# torch's messages where tensors of two floating-point dtypes meet, or a kernel has no float64.
_OTHER_DTYPE = re.compile(
    r"(?i)same dtype|same data type|expected scalar type|dtype mismatch|should be the same"
    r"|Input type \(.*\) and (bias|weight) type|got Double|not implemented for 'Double'"
)
# Messages where a dimension is missing.
_NO_BATCH = re.compile(
    r"(?i)Expected (\dD .*or )?\dD .*input|Expected [34]-dim|not enough values to unpack"
    r"|Dimension out of range|input.size\(-1\) must be equal"
)
# One sample that was flattened from its second dimension on.
_FLATTENED = re.compile(r"mat1 and mat2 shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x")
_NOT_ONE = re.compile(r"func returned (\d+ tensors|a tensor nested)")

_logger = logging.getLogger(__name__)


@contextmanager
def explaining_failures(function: LoadedFunction) -> Iterator[None]:
    """Turn an exception inside the function, or about it, into a `JobError`.

    The message of an exception inside the function includes the user's own frames, and the point
    is saved to a file. The whole traceback goes to the log of the job. Exceptions of the launcher
    are not changed.

    Raises:
        OutOfMemoryError: An allocation failed.
        JobError: Any other exception was raised in the body.
    """
    try:
        yield
    except (JobError, KeyboardInterrupt, GeneratorExit):
        raise
    # A user's function may raise anything, and may end the program.
    except BaseException as error:
        if is_of_launcher(error):
            raise
        _logger.debug("the computation failed", exc_info=error)
        if is_out_of_memory(error):
            raise OutOfMemoryError(one_line(error)) from error
        # The errors of autodiff_core name the operation that caused them; frames add nothing.
        is_ours = type(error).__module__.partition(".")[0] == "autodiff_core"
        if is_ours or not frames_of_user(error):
            raise JobError(
                f"function={function.reference}: {one_line(error)}{_advice(function, error)}"
            ) from error
        kept = _keep_point(function)
        raise JobError(
            f"function={function.reference}: {error_with_frames(error)}"
            + _advice(function, error, "\n")
            + (f"\nthe point is kept in {kept}" if kept else "")
        ) from error


def _advice(function: LoadedFunction, error: BaseException, separator: str = "; ") -> str:
    """Return which option helps with an error of torch; empty where none is known."""
    text = text_of(error)
    point = (function.point or {}).values()
    if _OTHER_DTYPE.search(text) and any(each.dtype == torch.float64 for each in point):
        return (
            f"{separator}the point is float64, as dtype= says; dtype=float32 computes in single "
            "precision, which the function itself does here"
        )
    if not function.is_batched and _lacks_batch(text):
        return (
            f"{separator}if the function takes a batch of samples, points.batched=true (with "
            "wrt=inputs) feeds it a point as a batch of one"
        )
    if isinstance(error, RuntimeError) and _NOT_ONE.search(text):
        return f"{separator}function.output= chooses one of several outputs"
    return ""


def _lacks_batch(text: str) -> bool:
    found = _FLATTENED.search(text)
    if found is not None:
        return int(found[1]) * int(found[2]) == int(found[3])
    return _NO_BATCH.search(text) is not None


def _keep_point(function: LoadedFunction) -> str | None:
    """Save the point in a file that ``inputs=numpy`` reads; return its path, None if not saved."""
    # The numbers of points of different sizes are no arguments; a note names the point.
    is_of_all = isinstance(function.function, RaggedFunction)
    if function.failures is None or not function.point or is_of_all:
        return None
    arrays = {name: _array(tensor) for name, tensor in function.point.items()}
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest()
    file = function.failures / f"{function.name}-{digest[:8]}.npz"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    # A full or read-only disk must not hide the failure itself.
    except OSError as error:
        _logger.warning("the point could not be kept: %s", error)
        return None
    return str(file)


def _array(tensor: Tensor) -> np.ndarray:
    wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return wide.detach().resolve_conj().cpu().numpy()
