"""Losses between a module's output and labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from jobs.configuration.schema import (
    REDUCTIONS,
    BatchedLoss,
    LiveLoss,
    LossConfig,
    PythonLoss,
    TargetLoss,
)
from jobs.errors import ConfigurationError, unknown
from jobs.functions.importing import import_target

Loss = Callable[[Any, Tensor], Any]


def label_of(config: LossConfig) -> str | None:
    """Return the name of the input that a loss compares the output with; None if it has none."""
    return config.label if isinstance(config, TargetLoss) else None


def load_loss(config: BatchedLoss) -> Loss | None:
    """Load the loss of a batch: a function of the output and the labels.

    Args:
        config: The option `loss`.

    Returns:
        The loss; None if the function itself returns the loss.

    Raises:
        JobError: An option is not valid, or there is no such function.
    """
    if config.reduction not in REDUCTIONS:
        raise unknown("loss.reduction", config.reduction, REDUCTIONS)
    if config.batch_size is not None and config.batch_size < 1:
        raise ConfigurationError(
            f"loss.batch_size={config.batch_size}: valid are null and integers from 1 on"
        )
    if isinstance(config, PythonLoss):
        is_live = isinstance(config, LiveLoss)
        loss = config.held if is_live else import_target("loss.target", config.target)
        if not callable(loss):
            raise ConfigurationError(
                f"loss.target={config.target}: this is of type {type(loss).__name__} and cannot "
                "be called"
            )
        return loss
    if not isinstance(config, TargetLoss):
        return None
    return _mse(config.reduction) if config.kind == "mse" else _cross_entropy(config.reduction)


def _mse(reduction: str) -> Loss:
    def loss(output: Tensor, label: Tensor) -> Tensor:
        # Broadcasting (n, 1) against (n,) would give n x n differences without an error.
        if output.shape != label.shape:
            raise ConfigurationError(
                f"loss=mse: the output has the shape {tuple(output.shape)} and the labels "
                f"{tuple(label.shape)}; they need the same"
            )
        # mse_loss is not used: torch 2.13 cannot differentiate its backward in forward mode.
        squares = (output - label).square()
        return squares.sum() if reduction == "sum" else squares.mean()

    return loss


def _cross_entropy(reduction: str) -> Loss:
    def loss(output: Tensor, label: Tensor) -> Tensor:
        # nll_loss is not used: its backward has no forward derivative either.
        logarithms = torch.log_softmax(output, dim=1)
        if label.shape == output.shape and label.is_floating_point():
            values = -(label * logarithms).sum(dim=1)
        else:
            _check_classes(output, label)
            values = -logarithms.gather(1, label.unsqueeze(1)).squeeze(1)
        return values.sum() if reduction == "sum" else values.mean()

    return loss


def losses_of_each(loss: Callable[..., Any]) -> Callable[..., Tensor]:
    """Return the losses of samples, by a function of tensors that hold one sample each."""

    def one(*sample: Tensor) -> Tensor:
        return loss(*(each.unsqueeze(0) for each in sample)).reshape(())

    def losses(*data: Tensor) -> Tensor:
        try:
            return torch.func.vmap(one)(*data)
        # A function that cannot be batched may raise an exception of any type; one that is itself
        # at fault raises it again below.
        except Exception:
            return torch.stack([one(*sample) for sample in zip(*data, strict=True)])

    return losses


def load_losses_of_samples(config: BatchedLoss) -> Callable[..., Tensor]:
    """Load a function of outputs and labels that returns the loss of each sample by itself.

    Of a built-in loss it is the sum over the components or positions of the sample, the negative
    logarithm of a probability, whatever `loss.reduction` is. Labels are not checked here:
    `load_loss` does that.

    Args:
        config: The option `loss`, of a loss that compares outputs with labels.
    """
    if isinstance(config, PythonLoss):
        loss = load_loss(config)
        assert loss is not None
        return losses_of_each(loss)

    def losses(output: Tensor, label: Tensor) -> Tensor:
        if config.kind == "mse":
            values = (output - label).square()
        elif label.is_floating_point():
            values = -(label * torch.log_softmax(output, dim=1)).sum(dim=1)
        else:
            values = -torch.log_softmax(output, dim=1).gather(1, label.unsqueeze(1)).squeeze(1)
        return values.reshape(len(values), -1).sum(dim=1)

    return losses


def summands_of_a_sample(config: BatchedLoss, label: Tensor) -> int:
    """Return how many summands of a loss, whose mean ``mean`` takes, a sample has.

    Args:
        config: The option `loss`.
        label: The labels of a batch.
    """
    if isinstance(config, PythonLoss) or not label.dim():
        return 1
    count = label[:1].numel()
    # Probabilities of classes.
    is_of_classes = config.kind == "cross_entropy" and label.is_floating_point()
    return count // max(1, label.shape[1]) if is_of_classes else count


def _check_classes(output: Tensor, label: Tensor) -> None:
    expected = (output.shape[0], *output.shape[2:])
    if label.is_floating_point() or label.is_complex() or label.shape != expected:
        raise ConfigurationError(
            f"loss=cross_entropy: the output has the shape {tuple(output.shape)} and the labels "
            f"{tuple(label.shape)} of {str(label.dtype).removeprefix('torch.')}; valid are "
            f"integers of shape {tuple(expected)}, or probabilities of the output's shape"
        )
    label = _unwrapped(label)
    if label.numel() and not 0 <= int(label.min()) <= int(label.max()) < output.shape[1]:
        raise ConfigurationError(
            f"loss=cross_entropy: the labels go from {int(label.min())} to {int(label.max())}; "
            f"the output has the classes 0 to {output.shape[1] - 1}"
        )


def _unwrapped(tensor: Tensor) -> Tensor:
    """Return the numbers of a tensor inside transformations of `torch.func`, of all points."""
    functorch = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor
