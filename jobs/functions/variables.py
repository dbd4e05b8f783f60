"""Split what a function takes into the point, where it is differentiated, and constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from jobs.configuration.schema import BatchedLoss, LossConfig, TargetLoss, WrtConfig
from jobs.errors import ConfigurationError, did_you_mean
from jobs.functions.batch_sum import BatchSum
from jobs.functions.loading import LoadedFunction
from jobs.functions.losses import Loss, load_loss
from jobs.functions.modules import ModuleCall, trainable
from jobs.sources import SourceArray, source_of_tensor

# A function of the tensors that are differentiated and of those that are constants, by name.
Evaluate = Callable[[Sequence[Tensor], Mapping[str, Tensor]], Any]


@dataclass(frozen=True)
class Variables:
    """A function of the point alone.

    Attributes:
        function: The function; takes the tensors of the point as its arguments.
        point: Name to tensor.
        constants: What else its values depend on, by name.
        choices: The options that led to this, as far as the numbers depend on them.
    """

    function: LoadedFunction
    point: dict[str, Tensor]
    constants: dict[str, SourceArray]
    choices: dict[str, Any]


def choose_variables(
    function: LoadedFunction,
    arguments: Mapping[str, SourceArray],
    wrt: WrtConfig,
    loss: LossConfig,
    dtype: torch.dtype,
    device: torch.device,
) -> Variables:
    """Make a function of what it is differentiated with respect to.

    Args:
        function: The function, and the module that it is.
        arguments: What it takes and, for a loss, the labels: name to array, in order.
        wrt: The option `wrt`.
        loss: The option `loss`.
        dtype: The dtype of the point and of all constants that are no integers.
        device: Where they lie.

    Raises:
        JobError: There is nothing of such a name, or the options do not fit.
    """
    label = loss.label if isinstance(loss, TargetLoss) else None
    fed = [name for name in arguments if name != label]
    state: dict[str, SourceArray] = {}
    if wrt.of == "params":
        parameters = _parameters(function)
        names = chosen(wrt, parameters, "parameter")
        point = {name: parameters[name].to(device, dtype) for name in names}
        evaluate = _of_parameters(function, names, fed)
        constants = dict(arguments)
    else:
        names = chosen(wrt, fed, "input")
        for name in names:
            arguments[name].require_numbers(dtype, name)
        point = {name: arguments[name].tensor(dtype, device) for name in names}
        evaluate = _of_inputs(function, names, fed)
        constants = {name: array for name, array in arguments.items() if name not in names}
    for name, array in constants.items():
        array.require_numbers(dtype.to_complex(), name)
    if function.module is not None:
        tensors = function.module.state_dict()
        state = {f"state {k}": source_of_tensor(v, k) for k, v in tensors.items() if k not in point}
    call, choices = _with_loss(evaluate, constants, loss, label, dtype, device)
    if wrt.of == "params":
        choices["wrt"] = "params"
    if function.module is not None:
        choices["mode"] = "train" if function.module.training else "eval"
    return Variables(
        function=replace(function, function=call, arguments=tuple(point), point=point),
        point=point,
        constants=constants | state,
        choices=choices,
    )


def chosen(wrt: WrtConfig, names: Sequence[str] | Mapping[str, Any], what: str) -> list[str]:
    """The names that match the option `wrt.pattern`, in their own order.

    Raises:
        ConfigurationError: A pattern matches none, or is no pattern.
    """
    patterns = wrt.pattern if isinstance(wrt.pattern, list) else [wrt.pattern]
    if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
        raise ConfigurationError(
            f"wrt.pattern={wrt.pattern}: valid is a pattern such as encoder.*.weight, or a list"
        )
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            given = list(names)
            listed = ", ".join(given[:8]) + (f" and {len(given) - 8} more" if given[8:] else "")
            raise ConfigurationError(
                f"wrt.pattern={pattern}: no {what} has such a name; there are {listed or 'none'}"
                + did_you_mean(pattern, given)
            )
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def _parameters(function: LoadedFunction) -> dict[str, Tensor]:
    if function.module is None:
        raise ConfigurationError(
            f"wrt=params: {function.name} is no torch.nn.Module, so that it has no parameters; "
            "valid is wrt=inputs, or a module as function.target"
        )
    parameters = trainable(function.module)
    if not parameters:
        raise ConfigurationError(f"wrt=params: no parameter of {function.name} requires a gradient")
    return parameters


def _of_parameters(function: LoadedFunction, names: list[str], fed: list[str]) -> Evaluate:
    assert function.module is not None
    call = ModuleCall(function.module, names)
    return lambda point, constants: call(point, [constants[name] for name in fed])


def _of_inputs(function: LoadedFunction, names: list[str], fed: list[str]) -> Evaluate:
    call = function.function
    if function.module is not None:
        module = ModuleCall(function.module)

        def call(*inputs: Tensor) -> Any:
            return module((), inputs)

    if names == fed:
        return lambda point, constants: call(*point)

    def evaluate(point: Sequence[Tensor], constants: Mapping[str, Tensor]) -> Any:
        tensors = {**constants, **dict(zip(names, point, strict=True))}
        return call(*(tensors[name] for name in fed))

    return evaluate


def _with_loss(
    evaluate: Evaluate,
    constants: Mapping[str, SourceArray],
    config: LossConfig,
    label: str | None,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A function of the point alone, and the choices that it depends on."""
    real = dtype if not dtype.is_complex else dtype.to_real()

    def load(rows: slice | None) -> dict[str, Tensor]:
        return {
            name: array.kept(dtype if array.is_complex else real, device, rows)
            for name, array in constants.items()
        }

    if not isinstance(config, BatchedLoss):
        whole = load(None)
        return lambda *point: evaluate(point, whole), {}
    loss = load_loss(config)
    choices = dict(vars(config))
    if config.batch_size is None:
        whole = load(None)
        return lambda *point: _loss_of(evaluate, loss, label, point, whole), {"loss": choices}

    def batch(rows: slice) -> Callable[..., Any]:
        part = load(rows)
        return lambda *point: _loss_of(evaluate, loss, label, point, part)

    samples = _samples(constants, label)
    return BatchSum(batch, samples, config.batch_size, config.reduction), {"loss": choices}


def _loss_of(
    evaluate: Evaluate,
    loss: Loss | None,
    label: str | None,
    point: Sequence[Tensor],
    constants: Mapping[str, Tensor],
) -> Any:
    output = evaluate(point, constants)
    return output if loss is None or label is None else loss(output, constants[label])


def _samples(constants: Mapping[str, SourceArray], label: str | None) -> int:
    """The length of the leading dimension that all constants share."""
    if not set(constants) - {label}:
        raise ConfigurationError(
            "loss.batch_size: there are no data to split; it needs wrt=params, or a wrt.pattern "
            "that leaves inputs as constants"
        )
    lengths = {name: array.shape[:1] for name, array in constants.items()}
    if len(set(lengths.values())) != 1 or () in lengths.values():
        raise ConfigurationError(
            "loss.batch_size: all data need the same leading dimension over samples; the shapes "
            "are " + ", ".join(f"{name} {array.shape}" for name, array in constants.items())
        )
    ((samples,),) = set(lengths.values())
    if samples == 0:
        raise ConfigurationError("loss.batch_size: the data have no samples")
    return samples
