"""What a process does once before derivatives are measured or computed in it."""

from __future__ import annotations

import torch

from jobs.machine.torch_compiler import spare_compiler

# A little less than the largest piece of memory that glibc takes from its heap, of 32 MiB.
_LARGEST_ON_THE_HEAP = 32 * 2**20 - 2**16


def warm_up() -> None:
    """Let torch load what it loads at a first derivative, and start its threads.

    These belong to no strategy; and threads cannot be started where memory is limited.
    """
    spare_compiler()
    point = torch.ones(2**16)
    torch.func.vmap(lambda tangent: torch.func.jvp(torch.sin, (point,), (tangent,))[1])(
        torch.ones(2, 2**16)
    )
    # glibc returns what is freed to the system, and the system fills pages with zeros when they
    # are taken again (measured: half of the time of a Hessian), until a large piece has been
    # freed: then it keeps up to twice as much. It does not go beyond this size.
    torch.empty(_LARGEST_ON_THE_HEAP, dtype=torch.uint8)
