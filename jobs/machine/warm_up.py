"""Prepare a process before derivatives are measured or computed in it."""

from __future__ import annotations

import torch

from jobs.machine.meta_operators import quicken_meta_operators
from jobs.machine.torch_compiler import spare_compiler

# Slightly less than the largest block that glibc ever takes from its heap, 32 MiB.
_LARGEST_ON_THE_HEAP = 32 * 2**20 - 2**16


def warm_up() -> None:
    """Make torch load the modules of its first batch of vectors, and start its threads.

    No strategy is to be charged with this time; and threads cannot be started once memory is
    limited.
    """
    spare_compiler()
    quicken_meta_operators()
    torch.func.vmap(torch.sin)(torch.ones(2, 2**16))
    # glibc returns freed memory to the system, and the system fills its pages with zeros when they
    # are allocated again (measured: half of the time of a Hessian). Once a large block has been
    # freed, glibc keeps up to twice its size instead; this block is the largest that counts.
    torch.empty(_LARGEST_ON_THE_HEAP, dtype=torch.uint8)
