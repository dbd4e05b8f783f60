"""The Jacobian of outputs over samples, of which each depends on one sample of the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from autodiff_core._engines.agreement import ReportFallback
from autodiff_core._errors import Fallback, first_line, is_out_of_memory
from autodiff_core._linearization.nesting import guarded_tensors
from autodiff_core._stream import blocks

Outputs = Callable[..., Tensor]


def jacobian_of_samples(
    outputs: Outputs,
    inputs: Sequence[Tensor],
    data: Sequence[Tensor],
    strategy: str,
    report: ReportFallback,
) -> Sequence[Tensor]:
    """Return the Jacobian of outputs, each differentiated with the data of its own sample only.

    A reverse pass over all samples gives one row and is as long as one that gives a row for each
    sample: this takes as many passes as a sample has outputs.

    Args:
        outputs: A function of the inputs and the data; its leading dimension is over samples.
        inputs: The differentiated tensors.
        data: Tensors with a leading dimension over samples, of which there is one at least.
        strategy: ``vectorize`` differentiates all samples at once, ``reverse-loop`` one by one.
        report: Called where samples cannot be batched, and are differentiated one by one.

    Returns:
        For each input a tensor of shape (outputs of all samples, elements of the input).
    """
    if strategy == "vectorize":
        try:
            return _at_once(outputs, inputs, data)
        # An operator that cannot be batched may raise an exception of any type.
        except Exception as error:
            if is_out_of_memory(error):
                raise
            report(Fallback(strategy, "one sample at a time", first_line(error)))
    samples = [_alone(outputs, inputs, sample) for sample in zip(*data, strict=True)]
    return [torch.cat(of_input) for of_input in zip(*samples, strict=True)]


def _of_one(outputs: Outputs, sample: Sequence[Tensor]) -> Outputs:
    def of_one(*inputs: Tensor) -> Tensor:
        with guarded_tensors(inputs):
            # Copies: a function may work in place on its arguments.
            given = (*inputs, *(each.unsqueeze(0) for each in sample))
            return outputs(*(each.clone() for each in given))[0]

    return of_one


def _at_once(
    outputs: Outputs, inputs: Sequence[Tensor], data: Sequence[Tensor]
) -> Sequence[Tensor]:
    count = len(inputs)

    def rows(*arguments: Tensor) -> tuple[Tensor, ...]:
        of_one = _of_one(outputs, arguments[count:])
        return torch.func.jacrev(of_one, argnums=tuple(range(count)))(*arguments[:count])

    dimensions = (*(None for _ in inputs), *(0 for _ in data))
    found = torch.func.vmap(rows, in_dims=dimensions)(*inputs, *data)
    return [
        part.reshape(-1, each.numel()) if each.numel() else part.new_empty(_lines(part, each), 0)
        for part, each in zip(found, inputs, strict=True)
    ]


def _lines(part: Tensor, like: Tensor) -> int:
    return torch.Size(part.shape[: part.dim() - like.dim()]).numel()


def _alone(
    outputs: Outputs, inputs: Sequence[Tensor], sample: Sequence[Tensor]
) -> Sequence[Tensor]:
    return whole_jacobian(_of_one(outputs, sample), inputs, "reverse-loop")


def whole_jacobian(outputs: Outputs, inputs: Sequence[Tensor], strategy: str) -> Sequence[Tensor]:
    """Return the Jacobian, as above, of outputs of which each may depend on all data."""
    stream = blocks(
        outputs,
        tuple(inputs),
        operation="jacobian",
        strategy=strategy,
        engine="plain",
        check_modes=False,
    )
    return stream.matrix().split([each.numel() for each in inputs], dim=1)
