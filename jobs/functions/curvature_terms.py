"""The terms of Gauss-Newton and Fisher matrices, by the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from jobs.configuration.schema import BatchedLoss
from jobs.errors import ConfigurationError
from jobs.functions.curvature import CurvatureTerm, MakeTerm, Tensors
from jobs.functions.losses import (
    label_of,
    load_loss,
    load_losses_of_samples,
    losses_of_each,
    summands_of_a_sample,
)

# The output of a function of the point and the constants.
Output = Callable[[Sequence[Tensor], Tensors], Tensor]
_Loss = Callable[[Tensor, Tensor], Tensor]


def curvature_term(kind: str, output: Output, config: BatchedLoss) -> MakeTerm:
    """Return what makes the terms of a curvature matrix.

    Args:
        kind: ``ggn`` or ``fisher``.
        output: The output of the function, or with loss=own its loss.
        config: The option `loss`.
    """
    label = label_of(config)
    if kind == "ggn":
        loss = load_loss(config)
        assert loss is not None
        assert label is not None
        return lambda part, names: _term(
            output, part, [n for n in names if n != label], _of_batch(loss, part[label])
        )
    losses = _losses(output, config)

    def fisher(part: Tensors, names: Sequence[str]) -> CurvatureTerm:
        summands = 1 if label is None else summands_of_a_sample(config, part[label])
        return _term(
            lambda point, given: losses(point, given, names),
            part,
            names,
            _half_of_squares(summands if config.reduction == "mean" else None),
        )

    return fisher


def _of_batch(loss: Callable[..., Tensor], labels: Tensor) -> _Loss:
    def of_batch(z: Tensor, centre: Tensor) -> Tensor:
        value = loss(z, labels)
        if not isinstance(value, Tensor) or value.numel() != 1:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ConfigurationError(
                f"loss: it returned {given} for a batch of outputs; valid is a tensor with one "
                "number, their mean or sum"
            )
        return value.reshape(())

    return of_batch


def _half_of_squares(summands: int | None) -> _Loss:
    """Return the loss Σ w (z + (z - c)²/2) of losses z of samples.

    Its value and gradient at z = c are those of the loss over the samples, and its Gauss-Newton
    matrix is the empirical Fisher matrix Σ w gradient gradientᵀ.

    Args:
        summands: w is one over the number of samples times this; None for w = 1.
    """

    def loss(z: Tensor, centre: Tensor) -> Tensor:
        total = (z + (z - centre).square() / 2).sum()
        return total if summands is None else total / (len(z) * summands)

    return loss


def _losses(
    output: Output, config: BatchedLoss
) -> Callable[[Sequence[Tensor], Tensors, Sequence[str]], Tensor]:
    """Return the losses of samples, of the point, the constants and the names of their data."""
    label = label_of(config)
    if label is not None:
        of_outputs = load_losses_of_samples(config)
        return lambda point, part, names: of_outputs(output(point, part), part[label])

    def own(point: Sequence[Tensor], part: Tensors, names: Sequence[str]) -> Tensor:
        if not names:
            # A point that goes in as a batch of one is the only sample.
            return output(point, part).reshape(1)

        def one(*sample: Tensor) -> Tensor:
            return output(point, {**part, **dict(zip(names, sample, strict=True))})

        return losses_of_each(one)(*(part[name] for name in names))

    return own


def _term(output: Output, part: Tensors, names: Sequence[str], loss: _Loss) -> CurvatureTerm:
    def outputs(*tensors: Tensor) -> Tensor:
        split = len(tensors) - len(names)
        data = dict(zip(names, tensors[split:], strict=True))
        return output(tensors[:split], {**part, **data})

    data = tuple(part[name] for name in names)
    return CurvatureTerm(outputs, data, loss, len(data[0]) if data else None)
