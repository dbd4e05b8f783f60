"""Split the arguments of a function into the point, where it is differentiated, and constants."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from jobs.configuration.schema import LossConfig, WrtConfig
from jobs.errors import ConfigurationError, did_you_mean
from jobs.functions.batches import Batches, fed_with
from jobs.functions.conversions import Conversion, conversions_of_arrays
from jobs.functions.loading import LoadedFunction
from jobs.functions.losses import label_of
from jobs.functions.modules import frozen, trainable
from jobs.functions.point_functions import at_points, with_loss
from jobs.functions.tracebacks import one_line
from jobs.functions.user_functions import of_inputs, of_parameters
from jobs.sources.source_array import SourceArray, converted, source_of_tensor


@dataclass(frozen=True)
class Variables:
    """A function of the point alone.

    Attributes:
        function: The function; its arguments are the tensors of the point.
        point: Name to tensor.
        constants: All other arrays that its values depend on, by name.
        choices: The options that the numbers depend on, by name, as JSON can hold them.
        conversions: What is done to point, constants and module.
        notes: What the user should know about the choice, as sentences.
    """

    function: LoadedFunction
    point: dict[str, Tensor]
    constants: dict[str, SourceArray]
    choices: dict[str, Any]
    conversions: tuple[Conversion, ...] = ()
    notes: tuple[str, ...] = ()


def choose_variables(
    function: LoadedFunction,
    arguments: Mapping[str, SourceArray],
    wrt: WrtConfig,
    loss: LossConfig,
    dtype: torch.dtype,
    device: torch.device,
    batches: Batches | None = None,
    curvature: str | None = None,
    differing: Sequence[str] | None = None,
) -> Variables:
    """Make a function of the tensors with respect to which it is differentiated.

    Args:
        function: The function, with its module if it is one.
        arguments: Its arguments and, for a loss, the labels: name to array, in order.
        wrt: The option `wrt`.
        loss: The option `loss`.
        dtype: The dtype of the point and of all constants but integers.
        device: The device of point and constants.
        batches: Further arguments, constants, which the user gives batch by batch; None for none.
        curvature: ``ggn`` or ``fisher`` for the curvature matrix of the loss.
        differing: Of many points of one size, the constants that have a leading dimension over
            them, as the point has; None for one point.

    Raises:
        JobError: No tensor has such a name, or the options do not fit.
    """
    given = [name for name in arguments if name != label_of(loss)]
    fed = given if batches is None else fed_with(batches, arguments, function, loss)
    if wrt.of == "params":
        parameters = _parameters(function)
        names = _matching(wrt, parameters, "parameter")
        kept_fixed = frozen(function.module, names) if function.module is not None else []
        point = {name: converted(parameters[name], dtype, device) for name in names}
        evaluate = of_parameters(function, names, fed)
        constants = dict(arguments)
    else:
        names = _differentiable(wrt, function, {name: arguments[name] for name in given})
        kept_fixed = frozen(function.module, ()) if function.module is not None else []
        for name in names:
            arguments[name].require_numbers(dtype.to_complex(), name)
        point = {
            name: arguments[name].tensor(arguments[name].dtype_under(dtype), device)
            for name in names
        }
        evaluate = of_inputs(function, names, fed)
        constants = {name: array for name, array in arguments.items() if name not in names}
        kept_fixed += _kept_whole(arguments, given, names)
    for name, array in constants.items():
        array.require_numbers(dtype.to_complex(), name)
    of_curvature = None if curvature is None else (curvature, tuple(point.values()))
    what = (function, evaluate, constants, loss, dtype, device)
    if differing is None:
        call, choices = with_loss(*what, batches, of_curvature)
    else:
        call, choices = at_points(*what, differing, of_curvature)
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
        notes=_notes_of_text(arguments, point) if wrt.of != "params" else (),
    )


def _notes_of_text(
    arguments: Mapping[str, SourceArray], point: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Say which numbers were written without a point, and are constants therefore."""
    return tuple(
        f"{array.origin} holds integers, which are constants; numbers such as 1.0 are variables"
        for name, array in arguments.items()
        if name not in point and array.is_text and array.is_integral
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
    state = function.module.state_dict()
    return {
        f"state {name}": source_of_tensor(_as_tensor(name, value), name)
        for name, value in state.items()
        if name not in point
    }


def _as_tensor(name: str, value: Any) -> Tensor:
    """Return an entry of a state, which may be any object that can be pickled, as a tensor."""
    if isinstance(value, Tensor):
        return value
    try:
        return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)
    # The classes of the object decide what it raises.
    except Exception as error:
        raise ConfigurationError(
            f"the state of the module has {name} of type {type(value).__name__}, which cannot be "
            f"pickled ({one_line(error)}), so an earlier run could not be told from another"
        ) from error


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


def _differentiable(
    wrt: WrtConfig, function: LoadedFunction, arrays: Mapping[str, SourceArray]
) -> list[str]:
    """Return the names of the inputs with respect to which the function is differentiated.

    Integers and truth values are constants: they are indices, counts and masks. They are converted
    where the function's own point has floating-point numbers in their place, and numbers that were
    written as text, in which 1 may mean 1.0, where there are no others or a pattern names them.

    Raises:
        ConfigurationError: A pattern names integers, or there is nothing else.
    """
    names = _matching(wrt, arrays, "input")
    whole = [name for name in names if arrays[name].is_integral and not _floats(function, name)]
    patterns = wrt.pattern if isinstance(wrt.pattern, list) else [wrt.pattern]
    named = [name for name in whole if name in patterns]
    if len(whole) == len(names):
        named = whole
    for name in named:
        if not arrays[name].is_text:
            raise ConfigurationError(
                f"wrt.pattern={wrt.pattern}: {name} ({arrays[name].origin}) holds "
                f"{arrays[name].dtype_name}, and functions are differentiated with respect to "
                "floating-point numbers; integers and truth values are constants. What is meant as "
                "a variable must be stored as floating-point numbers"
                + ("; wrt=params differentiates by parameters" if function.module else "")
            )
    return [name for name in names if name not in whole or name in named]


def _floats(function: LoadedFunction, name: str) -> bool:
    """Return whether the function's own point has floating-point numbers under a name."""
    own = (function.point or {}).get(name)
    return own is not None and (own.is_floating_point() or own.is_complex())


def _kept_whole(
    arguments: Mapping[str, SourceArray], fed: Sequence[str], names: Sequence[str]
) -> list[Conversion]:
    """Return which inputs are constants because they are integers."""
    found = [name for name in fed if name not in names and arguments[name].is_integral]
    if not found:
        return []
    return [Conversion("frozen", "inputs", tuple(found), "integers are constants")]


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
