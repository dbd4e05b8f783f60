"""Functions of tensors applied to stacks of them, by torch's own batching."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch._functorch.predispatch import lazy_load_decompositions


def batched(
    function: Callable[..., Sequence[Tensor]],
    stacks: Sequence[Tensor],
    count: int,
    *,
    randomness: str = "error",
) -> tuple[Tensor, ...]:
    """Return the images of stacked tensors, as `torch.func.vmap` does.

    What that function does beside, for arguments and results of any nesting, takes longer than a
    small derivative.

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
