"""Turn the arguments of a call into checked options, named as on the command line."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from numbers import Integral
from os import PathLike
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.nn import Module

from jobs.configuration.checks import check_together, typed_config
from jobs.configuration.composition import composed, members_of
from jobs.configuration.schema import (
    OWN_MODE,
    JobConfig,
    LiveFunction,
    LiveLoss,
    LiveSource,
    PythonFunction,
    PythonLoss,
)
from jobs.configuration.selections import plain_selection
from jobs.errors import ConfigurationError, unknown
from jobs.functions.live.identity import identity_of
from jobs.sources.live import forms_of, held_arrays

_Choice = str | Mapping[str, Any]
_NAME = re.compile(r"[\w.+-]*\w[\w.+-]*")


class WholeOptions(TypedDict, total=False):
    """The options of the command line, except for those that choose a shard."""

    strategy: str
    wrt: _Choice
    inputs: _Choice
    points: _Choice | None
    rows: Any
    columns: Any
    structure: _Choice
    sparsity: str | PathLike[str]
    loss: _Choice | Callable[..., Any]
    data: Any
    fisher: Mapping[str, Any]
    vectors: Any
    devices: str | torch.device | Sequence[str | torch.device]
    dtype: str | torch.dtype
    chunk_size: int | str
    compile: str
    memory: str | int
    seed: int
    verify: _Choice
    nonfinite: str
    output: Mapping[str, Any]
    runs: str | PathLike[str]
    overwrite: bool
    progress: str


class Options(WholeOptions, total=False):
    """The options of the command line; those of a group are a dictionary, or a member's name."""

    shard: str | None
    shards: int | None


def configured(
    op: str, function: Any, point: Any, name: str | None, options: Mapping[str, Any]
) -> JobConfig:
    """Return the options of a job, with the objects that the call passes.

    Args:
        op: The operation.
        function: A callable or a torch.nn.Module; the name of a built-in problem, an import path,
            or a dictionary of the options `function`, whose ``target`` may be a callable.
        point: A tensor or an array, or several in a tuple, list or dictionary; None where the
            options say where the inputs come from.
        name: The name of the job; it stands for what the identity of the function cannot cover.
        options: All other options.

    Raises:
        ConfigurationError: An argument is not valid.
    """
    given = {"op": op, **options}
    live_function = _take_function(given, function)
    live_loss, live_data = _take_loss(given), _take_data(given)
    live = {"inputs": _take_point(given, point), "vectors": _take_vectors(given)}
    if given.get("points", "") is None:
        del given["points"]
    for option in ("rows", "columns"):
        if given.get(option) is not None:
            given[option] = plain_selection(option, given[option])
    if isinstance(given.get("memory"), Integral):
        given["memory"] = f"{given['memory']}B"
    config = typed_config(composed(given))
    if live_function is not None:
        config.function = _function(live_function, config.function, name)
    elif name is not None:
        raise ConfigurationError(
            f"name={name}: names a function that is passed as an object; function={function} has "
            "its own name"
        )
    if live_data is not None:
        assert isinstance(config.function, PythonFunction)
        config.function.held_data = live_data
    if live_loss is not None:
        config.loss = _loss(live_loss, config.loss, name)
    for group, held in live.items():
        if held is not None:
            setattr(config, group, LiveSource("live", forms_of(held), held))
    check_together(config)
    return config


def _take_function(given: dict[str, Any], function: Any) -> Any:
    """Put the option `function` among the others; return the function if it is an object."""
    if isinstance(function, str):
        if ":" in function:
            given["function"] = {"name": "python", "target": function}
            return None
        valid = [each for each in members_of("function") if each != "python"]
        if function not in valid:
            raise unknown("function", function, [*valid, "an import path such as ./file.py:name"])
        given["function"] = function
        return None
    group = dict(function) if isinstance(function, Mapping) else {"target": function}
    if "target" in group:
        group = {"name": "python", **group}
    target = group.get("target")
    given["function"] = group
    if target is None or isinstance(target, str | Mapping):
        return None
    if isinstance(target, type) or not callable(target):
        what = "a class" if isinstance(target, type) else f"of type {type(target).__name__}"
        raise ConfigurationError(
            f"function: this is {what}; valid are a function of tensors, an instance of "
            "torch.nn.Module, the name of a built-in problem and an import path"
        )
    # A mode that the options choose applies to all parts of a module.
    given["function"] = {"mode": OWN_MODE, **group, "target": label_of_object(target)}
    return target


def _take_loss(given: dict[str, Any]) -> Any:
    loss = given.get("loss")
    if callable(loss):
        loss = {"kind": "python", "target": loss}
    if not isinstance(loss, Mapping) or not callable(target := loss.get("target")):
        return None
    given["loss"] = {"kind": "python", **loss, "target": label_of_object(target)}
    return target


def _take_data(given: dict[str, Any]) -> Any:
    """Put the data of a loss among the options of the function; return them if an object."""
    data = given.pop("data", None)
    if data is None:
        return None
    if not isinstance(given["function"], Mapping):
        raise ConfigurationError(
            f"data: function={given['function']} is a built-in problem, which has no data; valid "
            "is a function or module of yours"
        )
    name = data if isinstance(data, str) else label_of_object(data)
    given["function"] = {**given["function"], "data": name}
    return None if isinstance(data, str) else data


def _take_point(given: dict[str, Any], point: Any) -> Any:
    if point is None:
        return None
    if "inputs" in given:
        raise ConfigurationError(
            f"inputs={given['inputs']}: a point is passed as well; only one of them is valid"
        )
    return held_arrays("point", point)


def _take_vectors(given: dict[str, Any]) -> Any:
    vectors = given.get("vectors")
    values = list(vectors.values()) if isinstance(vectors, Mapping) else [vectors]
    is_list = isinstance(vectors, list | tuple)
    if not is_list and not any(isinstance(v, Tensor) or hasattr(v, "__array__") for v in values):
        return None
    return held_arrays("vectors", given.pop("vectors"))


def _function(held: Any, chosen: Any, name: str | None) -> LiveFunction:
    assert isinstance(chosen, PythonFunction)
    for option in ("keywords", "factory", "point"):
        if getattr(chosen, option):
            raise ConfigurationError(
                f"function.{option}: the function is passed as an object; functools.partial binds "
                "arguments, and the point is an argument of the call"
            )
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ConfigurationError(
            f"name={name!r}: valid are letters, digits and . _ + -, because the directory of the "
            "run has this name"
        )
    label = name or chosen.target
    identity = identity_of(held, f"function={label}", name=name, flags=chosen.mode == OWN_MODE)
    return LiveFunction(
        name="live",
        target=label,
        keywords={},
        factory=False,
        weights=chosen.weights,
        weights_key=chosen.weights_key,
        output=chosen.output,
        data=chosen.data,
        mode=chosen.mode,
        identity=identity.sha256,
        named=name is not None,
        covers=list(identity.covers),
        modules=list(identity.modules),
        held=held,
    )


def _loss(held: Any, chosen: Any, name: str | None) -> LiveLoss:
    assert isinstance(chosen, PythonLoss)
    identity = identity_of(held, f"loss={chosen.target}", name=name)
    return LiveLoss(
        **vars(chosen),
        identity=identity.sha256,
        covers=list(identity.covers),
        modules=list(identity.modules),
        held=held,
    )


def label_of_object(held: Any) -> str:
    """Return the name of a function or module, as the directory of a run can have it."""
    while isinstance(held, functools.partial):
        held = held.func
    name = ""
    if isinstance(held, Module):
        held = getattr(held, "_orig_mod", held)  # in the wrapper of torch.compile
    else:
        # An object of the user may answer any attribute with an error.
        with suppress(Exception):
            name = str(held.__name__)
    return re.sub(r"[^\w.+-]", "", name or type(held).__name__) or "function"
