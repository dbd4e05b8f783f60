"""torch's transformations of functions from tensors to tensors.

What `torch.func` does beside them, for arguments and results of any nesting, takes longer than a
small derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch._functorch import eager_transforms
from torch._functorch.predispatch import lazy_load_decompositions


def batched(
    function: Callable[..., Sequence[Tensor]],
    stacks: Sequence[Tensor],
    count: int,
    *,
    randomness: str = "error",
) -> tuple[Tensor, ...]:
    """Return the images of stacked tensors, as `torch.func.vmap` does.

    Args:
        function: Returns tensors.
        stacks: Its arguments, each with a leading dimension over `count`; at least one.
        count: How many there are.
        randomness: As in `torch.func.vmap`.
    """
    lazy_load_decompositions()
    level = _functorch._vmap_increment_nesting(count, randomness)
    try:
        images = function(*(_functorch._add_batch_dim(stack, 0, level) for stack in stacks))
        return tuple(_functorch._remove_batch_dim(image, level, count, 0) for image in images)
    finally:
        _functorch._vmap_decrement_nesting()


def pushed(
    function: Callable[..., Sequence[Tensor]],
    point: Sequence[Tensor],
    tangent: Sequence[Tensor],
    dual: Callable[[Tensor, Tensor], Tensor] = forward_ad.make_dual,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return values and the image of a tangent, as `torch.func.jvp` does.

    Args:
        function: Returns tensors.
        point: Its arguments; at least one.
        tangent: A tensor for each argument.
        dual: Makes a dual number of a tensor and its tangent.
    """
    # Inside another jvp, that one has entered torch's only level of dual numbers.
    with eager_transforms.jvp_increment_nesting() as level, forward_ad._set_fwd_grad_enabled(True):
        is_outermost = eager_transforms.JVP_NESTING == 1
        with forward_ad.dual_level() if is_outermost else nullcontext():
            duals = map(dual, point, tangent)
            found = [forward_ad.unpack_dual(each) for each in function(*duals)]
            images = (torch.zeros_like(p) if t is None else t for p, t in found)
            return (
                tuple(_functorch._unwrap_for_grad(value, level) for value, _ in found),
                tuple(_functorch._unwrap_for_grad(image, level) for image in images),
            )
