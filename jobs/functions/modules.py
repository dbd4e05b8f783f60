"""Use a torch.nn.Module as a function of its inputs or of its parameters."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import Module

from jobs.configuration.schema import MODES, PythonFunction
from jobs.errors import unknown
from jobs.functions.weights import load_weights
from jobs.sources.source_array import converted


def prepared_module(
    config: PythonFunction,
    module: Module,
    dtype: torch.dtype,
    device: torch.device,
    *,
    is_shared: bool,
) -> Module:
    """Return a module with its weights loaded, in the requested mode, dtype and device.

    Args:
        config: The option `function`.
        module: The module.
        dtype: The dtype of its floating-point parameters and buffers.
        device: The device of its parameters and buffers.
        is_shared: Whether the user's code holds the module, so that a copy must be changed: the
            next job of a sweep needs the original.

    Raises:
        ConfigurationError: The mode is unknown, or the weights do not fit.
    """
    if config.mode not in MODES:
        raise unknown("function.mode", config.mode, MODES)
    if is_shared:
        module = copy.deepcopy(module)
    # Not module.to(dtype=...), which drops the imaginary parts of complex tensors.
    module._apply(lambda tensor: converted(tensor, dtype, device))
    # After the conversion: float64 weights must not pass through float32 parameters.
    if config.weights is not None:
        load_weights(module, config.weights, config.weights_key)
    return module.train(config.mode == "train")


class ModuleCall:
    """A module as a pure function of its inputs and of some of its parameters.

    Buffers that a module in training mode changes (running statistics) are replaced by copies at
    each evaluation: each evaluation starts from the same values, and the module is not changed.
    """

    def __init__(self, module: Module, names: Sequence[str] = ()) -> None:
        """Prepare a module; its parameters do not require a gradient afterwards.

        Args:
            module: The module.
            names: The names of the parameters that are arguments.
        """
        # autograd must not record operations on parameters that are constants.
        self._module = module.requires_grad_(False)
        self._names = tuple(names)

    def __call__(self, parameters: Sequence[Tensor], inputs: Sequence[Tensor]) -> Any:
        """Evaluate the module with the given values of the named parameters."""
        replaced = dict(zip(self._names, parameters, strict=True))
        if self._module.training:
            replaced |= {name: buffer.clone() for name, buffer in self._module.named_buffers()}
        if not replaced:
            return self._module(*inputs)
        return functional_call(self._module, replaced, tuple(inputs))


def trainable(module: Module) -> dict[str, Tensor]:
    """Return the parameters that require a gradient, by name; tied ones once."""
    return {
        name: parameter.detach()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
