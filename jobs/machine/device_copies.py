"""Copy blocks from a device to the host, on a separate stream."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from jobs.machine.accelerator import SideStream, copies_overlap

_logger = logging.getLogger(__name__)

Copy = Callable[[Tensor, np.dtype], Callable[[], np.ndarray]]
"""Begins to copy entries in a given dtype; returns a function that waits for the copy."""


def ready_to_copy(values: Tensor, stored: np.dtype) -> Tensor:
    """Convert entries, on their device, to the dtype and layout in which numpy will store them.

    Args:
        values: Entries of any floating-point or complex dtype.
        stored: The dtype in the file.

    Returns:
        A contiguous tensor of the dtype `stored`.
    """
    wide = values.float() if values.dtype == torch.bfloat16 else values
    kind = torch.from_numpy(np.empty(0, stored)).dtype
    return wide.detach().resolve_conj().resolve_neg().to(kind).contiguous()


def copies_to_host(device: torch.device) -> Copy | None:
    """Return a function whose copies run while the device computes; None where none can.

    The copies use pinned memory, which torch reuses for the next copy when an array is freed.
    """
    if not copies_overlap(device):
        return None
    side = SideStream(device)

    def begin(values: Tensor, stored: np.dtype) -> Callable[[], np.ndarray]:
        source = ready_to_copy(values.to(device), stored)
        target = _host_memory(source)
        copied = side.copy(source, target)

        def finish() -> np.ndarray:
            copied.synchronize()
            return target.numpy()

        return finish

    return begin


def _host_memory(source: Tensor) -> Tensor:
    """Return pinned memory of the shape and dtype of a tensor; other memory where none is left."""
    try:
        return torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
    except RuntimeError as error:
        # The driver copies into it in steps, which takes longer.
        _logger.warning("blocks are copied into memory that is not pinned: %s", error)
        return torch.empty(source.shape, dtype=source.dtype)
