"""Use a torch.nn.Module as a function of its inputs or of its parameters."""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import Module, Parameter
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from jobs.configuration.schema import MODES, OWN_MODE, LiveFunction, PythonFunction
from jobs.errors import ConfigurationError, unknown
from jobs.functions.conversions import Conversion, conversions_of_tensors
from jobs.functions.tracebacks import one_line
from jobs.functions.weights import load_weights
from jobs.sources.source_array import converted

Places = Callable[[Tensor], torch.device]
"""Says on which device a tensor of a module is to be."""


def prepared_module(
    config: PythonFunction,
    module: Module,
    dtype: torch.dtype,
    device: torch.device,
    conversions: list[Conversion],
    *,
    is_shared: bool,
) -> Module:
    """Return a module with its weights loaded, in the requested mode, dtype and device.

    Args:
        config: The option `function`.
        module: The module.
        dtype: The dtype of its floating-point parameters and buffers.
        device: The device of its parameters and buffers; a module that is spread over several
            devices, of which this is one, stays as it is.
        conversions: Takes what is done to them.
        is_shared: Whether the user's code holds the module, so that a copy must be changed: the
            next job of a sweep needs the original.

    Raises:
        ConfigurationError: The mode is unknown, the module is a script, cannot be copied or is
            distributed, or the weights do not fit.
    """
    # The wrapper of torch.compile: derivatives are taken of what it wraps.
    module = getattr(module, "_orig_mod", module)
    modes = (OWN_MODE, *MODES) if isinstance(config, LiveFunction) else MODES
    if config.mode not in modes:
        raise unknown("function.mode", config.mode, modes)
    if isinstance(module, torch.jit.ScriptModule):
        raise ConfigurationError(
            f"function.target={config.target}: this is a module of torch.jit, whose parameters "
            "cannot be replaced; valid is the torch.nn.Module that it was made of"
        )
    if lazy := [name for name, each in module.named_parameters() if is_lazy(each)]:
        raise ConfigurationError(
            f"function.target={config.target}: {lazy[0]} of this lazy module gets its shape and "
            "values from a first call; valid is a module that has been called, such as one that a "
            "function makes and calls, with function.factory=true"
        )
    shared, places = module, _places_of(config, module, device)
    if is_shared:
        module = _copy(config, module, dtype, places)
    if config.weights is None:
        conversions += _conversions(shared, dtype, places)
    # Not module.to(dtype=...), which drops the imaginary parts of complex tensors.
    module._apply(lambda tensor: converted(tensor, dtype, places(tensor)))
    # After the conversion: float64 weights must not pass through float32 parameters.
    if config.weights is not None:
        conversions += load_weights(module, config.weights, config.weights_key)
    return module if config.mode == OWN_MODE else _in_mode(config, module)


def _in_mode(config: PythonFunction, module: Module) -> Module:
    try:
        return module.train(config.mode == "train")
    # The mode of an exported program was chosen before it was exported, in evaluation as a rule.
    except NotImplementedError as error:
        if config.mode == "train":
            raise ConfigurationError(
                "function.mode=train: an exported program keeps the mode in which it was exported; "
                "valid is function.mode=eval, which leaves it as it is"
            ) from error
        return module


def _places_of(config: PythonFunction, module: Module, device: torch.device) -> Places:
    """Return where each tensor of a module is to be: on the device, or where its user put it."""
    tensors = [*module.parameters(), *module.buffers()]
    named = f"function.target={config.target}: "
    # Loading it takes long; where nothing has, there is none.
    distributed: Any = sys.modules.get("torch.distributed.tensor")
    if distributed and any(isinstance(tensor, distributed.DTensor) for tensor in tensors):
        raise ConfigurationError(
            f"{named}its tensors are DTensors (FSDP, tensor parallel), of which each process holds "
            "a part; derivatives through them fail or are wrong in torch; valid is the module "
            "before it is sharded, also with its layers on several devices"
        )
    found = sorted({str(tensor.device) for tensor in tensors})
    if "meta" in found:
        raise ConfigurationError(
            f"{named}some of its tensors are on the device meta, without values; valid is a module "
            "that holds its weights"
        )
    if len(found) < 2:
        return lambda tensor: device
    if str(device) not in found:
        raise ConfigurationError(
            f"{named}its tensors are on {', '.join(found)}; valid for devices= is one of these, "
            "where the inputs then are"
        )
    return lambda tensor: tensor.device


def _copy(config: PythonFunction, module: Module, dtype: torch.dtype, places: Places) -> Module:
    """Copy a module, its parameters and buffers straight to their dtype and device."""
    made = {}
    for tensor in (*module.parameters(), *module.buffers()):
        if type(tensor) in (Tensor, Parameter) and tensor.is_leaf:
            there = converted(tensor.detach(), dtype, places(tensor))
            there = there.clone() if there.data_ptr() == tensor.data_ptr() else there
            is_parameter = isinstance(tensor, Parameter)
            gradient = tensor.requires_grad
            made[id(tensor)] = Parameter(there, gradient) if is_parameter else there
    try:
        return copy.deepcopy(module, made)
    # The parts of a module may be of any class.
    except Exception as error:
        raise ConfigurationError(
            f"function.target={config.target}: the module cannot be copied ({one_line(error)}), "
            "and the job must not change yours; valid is a class or function that creates it, "
            "the latter with function.factory=true"
        ) from error


def _conversions(module: Module, dtype: torch.dtype, places: Places) -> list[Conversion]:
    """Return what becomes of parameters and buffers."""
    found = []
    for what, named in (
        ("parameters", module.named_parameters()),
        ("buffers", module.named_buffers()),
    ):
        tensors = [
            (n, t, converted(t[:0] if t.dim() else t, dtype, t.device).dtype, places(t))
            for n, t in named
        ]
        found += conversions_of_tensors(what, tensors)
    return found


def frozen(module: Module, names: Sequence[str]) -> list[Conversion]:
    """Return which parameters are constants, because of the job or since before.

    Args:
        module: The module as the user gives it.
        names: The names of the parameters that are differentiated.
    """
    found: dict[str, list[str]] = {}
    for name, parameter in module.named_parameters():
        if name not in names:
            how = (
                "constants of this job"
                if parameter.requires_grad
                else "required no gradient already"
            )
            found.setdefault(how, []).append(name)
    return [Conversion("frozen", "parameters", tuple(each), how) for how, each in found.items()]


# What an evaluation may fill; torch's own tables of parameters, buffers and modules are among them.
_CONTAINERS = (dict, list, set, OrderedDict, defaultdict, deque)


class ModuleCall:
    """A module as a pure function of its inputs and of some of its parameters.

    Every evaluation starts from the same state. Buffers that a module in training mode changes
    (running statistics) are replaced by copies, and its attributes are those that it came with: a
    cache that one evaluation fills belongs to the graph of that evaluation.

    A backward pass may evaluate the module again (checkpointing, adjoint solvers, reversible
    layers). It then finds the tensors of its own evaluation in the module, as in a training loop:
    they return when the gradient of an output arrives.
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
        self._is_training = any(part.training for part in module.modules())
        self._places = _places(module)
        self._homes = {name: parameter.device for name, parameter in module.named_parameters()}
        self._states = [(part, _State(part)) for part in module.modules()]

    def __call__(
        self,
        parameters: Sequence[Tensor],
        inputs: Sequence[Tensor],
        named: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Any:
        """Evaluate the module with the given values of the parameters that are arguments.

        Args:
            parameters: These values.
            inputs: The inputs that are given by position.
            named: Those that are given by name.
        """
        self._forget()
        given = zip(self._names, parameters, strict=True)
        replaced = {name: tensor.to(self._homes[name]) for name, tensor in given}
        if self._is_training:
            replaced |= {name: buffer.clone() for name, buffer in self._module.named_buffers()}
        if not replaced:
            return self._module(*inputs, **named)
        outputs = functional_call(self._module, replaced, tuple(inputs), dict(named))
        for output in tree_leaves(outputs):
            if isinstance(output, Tensor) and output.requires_grad:
                output.register_hook(lambda gradient: self._put_back(replaced))
        return outputs

    def _forget(self) -> None:
        """Drop what earlier evaluations left in attributes, such as caches of their own graphs."""
        for part, state in self._states:
            state.restore(part)

    def _put_back(self, replaced: Mapping[str, Tensor]) -> None:
        for name, tensor in replaced.items():
            for tensors, key in self._places[name]:
                tensors[key] = tensor


class _State:
    """The attributes of a module, with what the containers among them hold.

    Containers are restored in place: a hook or another module may hold the same one.
    """

    def __init__(self, part: Module) -> None:
        self._attributes = dict(part.__dict__)
        self._contents = {
            name: value.copy()
            for name, value in self._attributes.items()
            if type(value) in _CONTAINERS
        }

    def restore(self, part: Module) -> None:
        """Give the module the attributes back that it had."""
        part.__dict__.clear()
        part.__dict__.update(self._attributes)
        for name, content in self._contents.items():
            container = self._attributes[name]
            container.clear()
            if isinstance(container, list | deque):
                container.extend(content)
            else:
                container.update(content)


def _places(module: Module) -> dict[str, list[tuple[dict[str, Any], str]]]:
    """Return where a module keeps each parameter and buffer, by the first of its names.

    Tied tensors stand in several places.
    """
    found: dict[int, list[tuple[dict[str, Any], str]]] = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for key, tensor in tensors.items():
                found.setdefault(id(tensor), []).append((tensors, key))
    named = chain(module.named_parameters(), module.named_buffers())
    return {name: found[id(tensor)] for name, tensor in named}


def trainable(module: Module) -> dict[str, Tensor]:
    """Return the parameters that require a gradient, by name; tied ones once."""
    return {
        name: parameter.detach()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }
