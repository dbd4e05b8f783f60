"""Split the arguments of a function into the point, where it is differentiated, and constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from jobs.configuration.schema import BatchedLoss, LossConfig, WrtConfig
from jobs.errors import ConfigurationError, did_you_mean
from jobs.functions.batch_sum import BatchSum
from jobs.functions.conversions import Conversion, conversions_of_arrays
from jobs.functions.loading import LoadedFunction
from jobs.functions.losses import label_of, load_loss
from jobs.functions.modules import ModuleCall, frozen, trainable
from jobs.sources.source_array import SourceArray, converted, source_of_tensor

# A function of the tensors of the point, in order, and of the constants, by name.
Evaluate = Callable[[Sequence[Tensor], Mapping[str, Tensor]], Any]


@dataclass(frozen=True)
class Variables:
    """A function of the point alone.

    Attributes:
        function: The function; its arguments are the tensors of the point.
        point: Name to tensor.
        constants: All other arrays that its values depend on, by name.
        choices: The options that the numbers depend on, by name, as JSON can hold them.
        conversions: What is done to point, constants and module.
    """

    function: LoadedFunction
    point: dict[str, Tensor]
    constants: dict[str, SourceArray]
    choices: dict[str, Any]
    conversions: tuple[Conversion, ...] = ()


def choose_variables(
    function: LoadedFunction,
    arguments: Mapping[str, SourceArray],
    wrt: WrtConfig,
    loss: LossConfig,
    dtype: torch.dtype,
    device: torch.device,
) -> Variables:
    """Make a function of the tensors with respect to which it is differentiated.

    Args:
        function: The function, with its module if it is one.
        arguments: Its arguments and, for a loss, the labels: name to array, in order.
        wrt: The option `wrt`.
        loss: The option `loss`.
        dtype: The dtype of the point and of all constants but integers.
        device: The device of point and constants.

    Raises:
        JobError: No tensor has such a name, or the options do not fit.
    """
    fed = [name for name in arguments if name != label_of(loss)]
    if wrt.of == "params":
        parameters = _parameters(function)
        names = _matching(wrt, parameters, "parameter")
        kept_fixed = frozen(function.module, names) if function.module is not None else []
        point = {name: converted(parameters[name], dtype, device) for name in names}
        evaluate = _of_parameters(function, names, fed)
        constants = dict(arguments)
    else:
        names = _matching(wrt, fed, "input")
        kept_fixed = frozen(function.module, ()) if function.module is not None else []
        for name in names:
            arguments[name].require_numbers(dtype.to_complex(), name)
        point = {
            name: arguments[name].tensor(arguments[name].dtype_under(dtype), device)
            for name in names
        }
        evaluate = _of_inputs(function, names, fed)
        constants = {name: array for name, array in arguments.items() if name not in names}
    for name, array in constants.items():
        array.require_numbers(dtype.to_complex(), name)
    call, choices = _with_loss(evaluate, constants, loss, dtype, device)
    if wrt.of == "params":
        choices["wrt"] = "params"
    if function.module is not None:
        choices["mode"] = "train" if function.module.training else "eval"
    return Variables(
        function=replace(function, function=call, arguments=tuple(point), point=point),
        point=point,
        constants=constants | _state(function, point),
        choices=choices,
        conversions=(
            *function.conversions,
            *_conversions(arguments, names if wrt.of != "params" else (), dtype, device),
            *kept_fixed,
        ),
    )


def _conversions(
    arguments: Mapping[str, SourceArray],
    names: Sequence[str],
    dtype: torch.dtype,
    device: torch.device,
) -> list[Conversion]:
    """Return what becomes of the arguments, of which those with the names are differentiated."""
    point = [(n, arguments[n], arguments[n].dtype_under(dtype)) for n in names]
    constants = [
        (name, array, array.dtype_under(dtype if array.is_complex else _real(dtype)))
        for name, array in arguments.items()
        if name not in names and (array.is_complex or array.is_floating)
    ]
    return [
        *conversions_of_arrays("inputs", point, device),
        *conversions_of_arrays("constants", constants, device),
    ]


def _real(dtype: torch.dtype) -> torch.dtype:
    return dtype.to_real() if dtype.is_complex else dtype


def _state(function: LoadedFunction, point: Mapping[str, Tensor]) -> dict[str, SourceArray]:
    """Return the parameters and buffers of a module that are not part of the point."""
    if function.module is None:
        return {}
    tensors = function.module.state_dict()
    return {f"state {k}": source_of_tensor(v, k) for k, v in tensors.items() if k not in point}


def _matching(wrt: WrtConfig, names: Sequence[str] | Mapping[str, Any], what: str) -> list[str]:
    """Return the names that match the option `wrt.pattern`, in the order of the names.

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
            f"wrt=params: {function.name} is not a torch.nn.Module, so it has no parameters; "
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
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return a function of the point alone, and the choices that it depends on."""

    def load(rows: slice | None) -> dict[str, Tensor]:
        return {
            name: array.kept(dtype if array.is_complex else _real(dtype), device, rows)
            for name, array in constants.items()
        }

    if not isinstance(config, BatchedLoss):
        whole = load(None)
        return lambda *point: evaluate(point, whole), {}
    loss, label = load_loss(config), label_of(config)

    def batch(rows: slice | None) -> Callable[..., Any]:
        part = load(rows)

        def call(*point: Tensor) -> Any:
            output = evaluate(point, part)
            return output if loss is None or label is None else loss(output, part[label])

        return call

    # Of a live loss its identity counts.
    choices = {
        "loss": {k: v for k, v in vars(config).items() if k not in ("covers", "modules", "held")}
    }
    if config.batch_size is None:
        return batch(None), choices
    samples = _samples(constants, label)
    return BatchSum(batch, samples, config.batch_size, config.reduction), choices


def _samples(constants: Mapping[str, SourceArray], label: str | None) -> int:
    """Return the length of the leading dimension that all constants share."""
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
