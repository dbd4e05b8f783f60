"""A torch.nn.Module as a function: of its inputs, or of its parameters."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import Module

from jobs.configuration.schema import MODES, PythonFunction
from jobs.errors import unknown
from jobs.functions.weights import load_weights


def prepared_module(
    config: PythonFunction,
    module: Module,
    dtype: torch.dtype,
    device: torch.device,
    *,
    is_shared: bool,
) -> Module:
    """A module with its weights, in its mode, dtype and place.

    Args:
        config: The option `function`.
        module: The module.
        dtype: The dtype of its floating-point parameters and buffers.
        device: Where they lie.
        is_shared: Whether the module belongs to the user's code, so that a copy is changed: the
            next job of a sweep must find it as it was.

    Raises:
        ConfigurationError: The mode is unknown, or the weights do not fit.
    """
    if config.mode not in MODES:
        raise unknown("function.mode", config.mode, MODES)
    if is_shared:
        module = copy.deepcopy(module)
    with warnings.catch_warnings():
        # torch calls complex modules a new feature.
        warnings.simplefilter("ignore", UserWarning)
        module.to(device=device, dtype=dtype)
    # After the conversion: float64 weights must not pass through float32 parameters.
    if config.weights is not None:
        load_weights(module, config.weights, config.weights_key)
    return module.train(config.mode == "train")


class ModuleCall:
    """A module as a pure function of its inputs and of some of its parameters.

    Buffers that a module in training mode changes (running statistics) are replaced by copies at
    each evaluation: every one starts from the same, and the module is left as it was.
    """

    def __init__(self, module: Module, names: Sequence[str] = ()) -> None:
        """Take a module.

        Args:
            module: The module; its parameters need no gradient afterwards.
            names: Those of its parameters that are arguments.
        """
        # Parameters that are constants must not be recorded.
        self._module = module.requires_grad_(False)
        self._names = tuple(names)

    def __call__(self, parameters: Sequence[Tensor], inputs: Sequence[Tensor]) -> Any:
        """Evaluate the module with other values for the parameters that were named."""
        replaced = dict(zip(self._names, parameters, strict=True))
        if self._module.training:
            replaced |= {name: buffer.clone() for name, buffer in self._module.named_buffers()}
        if not replaced:
            return self._module(*inputs)
        return functional_call(self._module, replaced, tuple(inputs))


def trainable(module: Module) -> dict[str, Tensor]:
    """The parameters by name that require a gradient; tied ones once."""
    return {
        name: parameter.detach()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
