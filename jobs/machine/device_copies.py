"""Copies of blocks from a CUDA device to the host, on a stream of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Copy = Callable[[Tensor, np.dtype], Callable[[], np.ndarray]]
"""Begins to copy entries as a stored dtype; what it gives waits for the copy and hands it over."""


def ready_to_copy(values: Tensor, stored: np.dtype) -> Tensor:
    """Entries on their device as numpy will store them: of that dtype, in one piece.

    Args:
        values: Entries of any floating-point or complex dtype.
        stored: The dtype in the file.
    """
    wide = values.float() if values.dtype == torch.bfloat16 else values
    kind = torch.from_numpy(np.empty(0, stored)).dtype
    return wide.detach().resolve_conj().resolve_neg().to(kind).contiguous()


def copies_to_host(device: torch.device) -> Copy | None:
    """Copies that go on while the device computes; None where blocks are on the host already.

    They go through pinned memory, which torch keeps for the next one when an array is dropped.
    """
    if device.type != "cuda":
        return None
    side = torch.cuda.Stream(device)

    def begin(values: Tensor, stored: np.dtype) -> Callable[[], np.ndarray]:
        source = ready_to_copy(values, stored)
        target = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
        side.wait_stream(torch.cuda.current_stream(device))
        copied = torch.cuda.Event()
        with torch.cuda.stream(side):
            target.copy_(source, non_blocking=True)
            copied.record(side)
        # Its memory is not given to the next block while it is read.
        source.record_stream(side)

        def finish() -> np.ndarray:
            copied.synchronize()
            return target.numpy()

        return finish

    return begin
