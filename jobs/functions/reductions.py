"""Whether a loss of the user's combines samples as `loss.reduction` says, a mean or a sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from jobs.errors import ConfigurationError
from jobs.functions.at_points import PointsFunction
from jobs.functions.batch_sum import BatchSum
from jobs.functions.blocks import BlocksFunction
from jobs.functions.evaluation import evaluated


def require_reduction(function: Callable[..., Any], point: Sequence[Tensor], seed: int) -> None:
    """Compare the loss of the first batch with those of its halves, where that tells more.

    A loss that draws random numbers, or normalizes over the batch, is neither a mean nor a sum.

    Args:
        function: The function of the job.
        point: The tensors of the point; of many points of one size, of the first.
        seed: The seed of torch's generators.

    Raises:
        ConfigurationError: The loss is a mean, and `loss.reduction` says ``sum``, or the reverse.
    """
    if isinstance(function, BlocksFunction):
        function, point = function.function, tuple(function.whole_point.values())
    halves = function.halves() if isinstance(function, BatchSum | PointsFunction) else None
    if halves is None:
        return
    # A function may raise anything for fewer samples than it is made for; one that is itself at
    # fault raises it again.
    try:
        values = [evaluated(term, point, seed).detach() for term in halves.terms]
        whole, first, second = map(float, values)
    except Exception:
        return
    counts = halves.counts
    found = {
        "mean": (counts[0] * first + counts[1] * second) / sum(counts),
        "sum": first + second,
    }
    other = "sum" if halves.reduction == "mean" else "mean"
    tolerance = torch.finfo(values[0].dtype).eps ** 0.5 * max(map(abs, (whole, first, second)))
    if abs(whole - found[other]) <= tolerance < abs(whole - found[halves.reduction]):
        raise ConfigurationError(
            f"loss.reduction={halves.reduction}: the loss of the first {sum(counts)} samples is "
            f"the {other} of the losses of their halves, not the {halves.reduction}, so that the "
            f"samples would be weighed wrongly; valid is loss.reduction={other}"
        )
