"""The user's function as a function of the tensors of the point and of the constants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from jobs.functions.loading import LoadedFunction
from jobs.functions.modules import ModuleCall

# A function of the tensors of the point, in order, and of the constants, by name.
Evaluate = Callable[[Sequence[Tensor], Mapping[str, Tensor]], Any]


def of_parameters(function: LoadedFunction, names: Sequence[str], fed: Sequence[str]) -> Evaluate:
    """Return a module as a function of some of its parameters.

    Args:
        function: The function, which is a module.
        names: The names of the parameters.
        fed: The names of its arguments, in order.
    """
    assert function.module is not None
    call = ModuleCall(function.module, names)
    by_position, by_name = _split(function, fed)

    def evaluate(point: Sequence[Tensor], constants: Mapping[str, Tensor]) -> Any:
        inputs = [constants[name] for name in by_position]
        return call(point, inputs, {name: constants[name] for name in by_name})

    return evaluate


def of_inputs(function: LoadedFunction, names: Sequence[str], fed: Sequence[str]) -> Evaluate:
    """Return a function of some of its arguments.

    Args:
        function: The function.
        names: The names of the arguments that are the point.
        fed: The names of all its arguments, in order.
    """
    call = function.function
    if function.module is not None:
        module = ModuleCall(function.module)

        def call(*inputs: Tensor, **named: Tensor) -> Any:
            return module((), inputs, named)

    by_position, by_name = _split(function, fed)
    if list(names) == list(by_position) and not by_name:
        return lambda point, constants: call(*point)

    def evaluate(point: Sequence[Tensor], constants: Mapping[str, Tensor]) -> Any:
        tensors = {**constants, **dict(zip(names, point, strict=True))}
        inputs = [tensors[name] for name in by_position]
        return call(*inputs, **{name: tensors[name] for name in by_name})

    return evaluate


def noting_changes(function: LoadedFunction, evaluate: Evaluate) -> Evaluate:
    """Return the same function, which adds the constants that it changes to `function.changed`."""

    def noted(point: Sequence[Tensor], constants: Mapping[str, Tensor]) -> Any:
        before = {name: tensor._version for name, tensor in constants.items()}
        value = evaluate(point, constants)
        changed = {name for name, version in before.items() if constants[name]._version != version}
        function.changed.update(changed)
        return value

    return noted


def _split(function: LoadedFunction, fed: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    signature = function.signature
    return (fed, ()) if signature is None else signature.split(fed)
