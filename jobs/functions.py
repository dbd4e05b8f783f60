"""Load the function of a job: a built-in problem or the user's own."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs import problems
from jobs.errors import ConfigurationError, JobError, did_you_mean
from jobs.problems import load_builder
from jobs.schema import FunctionConfig, PythonFunction

SECOND_ORDER = ("hessian", "vhp", "hvp")
SCALAR_PROBLEMS = "rosenbrock, mlp_parameters, pairwise_energy and gp_residual"


@dataclass(frozen=True)
class LoadedFunction:
    """A function that is ready to be called.

    Attributes:
        name: What it is called in file names and reports.
        function: The function; called with the tensors of the point as its arguments.
        reference: What determines it: the name and all parameters.
        files: The source files that it is defined in and imported from.
        arguments: The names of its arguments in order; None where they cannot be known.
        point: Its default point by argument name; None where it has none.
        outputs: The names of its outputs in order; None where they cannot be known.
    """

    name: str
    function: Callable[..., Any]
    reference: str
    files: tuple[Path, ...]
    arguments: tuple[str, ...] | None
    point: dict[str, Tensor] | None
    outputs: tuple[str, ...] | None


def load_function(
    config: FunctionConfig, operation: str, dtype: torch.dtype, device: torch.device
) -> LoadedFunction:
    """Load what the option `function` names.

    Args:
        config: The option.
        operation: What is to be computed: the second-order operations need the scalar form.
        dtype: The dtype of the default point.
        device: The device of the default point.

    Raises:
        ConfigurationError: The function does not exist, or the operation has no meaning for it.
    """
    if isinstance(config, PythonFunction):
        return _load_python(config, dtype, device)
    return _load_problem(config, operation, dtype, device)


def import_target(option: str, target: str) -> Any:
    """Import an object by ``package.module:name``.

    The directory from which the program was started counts as a place to import from, after all
    others: a directory of the user's must never stand in for a package of ours.

    Args:
        option: The option that holds the path, for messages.
        target: The import path.

    Raises:
        ConfigurationError: There is no such module or name.
    """
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        raise ConfigurationError(
            f"{option}={target}: valid is an import path such as mypackage.module:name"
        )
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise JobError(
                f"{option}={target}: {module_name} itself imports {error.name}, which is not "
                "installed"
            ) from error
        raise ConfigurationError(
            f"{option}={target}: there is no module {error.name}; looked in {os.getcwd()} and "
            "among the installed packages"
        ) from error
    # The user's module may fail in any way while it is imported; a script ends the program.
    except (Exception, SystemExit) as error:
        raise JobError(
            f"{option}={target}: importing {module_name} failed with "
            f"{type(error).__name__}: {error}"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            file = getattr(sys.modules[module_name], "__file__", None)
            raise ConfigurationError(
                f"{option}={target}: there is no {name} in {file or module_name}"
                + did_you_mean(part, dir(found))
            )
        found = getattr(found, part)
    return found


def _load_problem(
    config: FunctionConfig, operation: str, dtype: torch.dtype, device: torch.device
) -> LoadedFunction:
    options = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name != "name"
    }
    builder = load_builder(config.name)
    try:
        problem = builder(**options, dtype=dtype, device=device)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    function = problem.function
    if operation in SECOND_ORDER:
        if problem.scalar is None:
            raise ConfigurationError(
                f"op={operation} function={config.name} has no meaning: a Hessian needs a scalar "
                f"function, and this one returns a vector; valid are op=jacobian, or one of the "
                f"functions {SCALAR_PROBLEMS}"
            )
        function = problem.scalar
    return LoadedFunction(
        name=config.name,
        function=function,
        reference=f"{config.name}({', '.join(f'{k}={v}' for k, v in options.items())})",
        files=tuple(sorted(Path(problems.__file__).parent.glob("*.py"))),
        arguments=tuple(problem.point),
        point=problem.point,
        outputs=problem.outputs if operation not in SECOND_ORDER else None,
    )


def _load_python(
    config: PythonFunction, dtype: torch.dtype, device: torch.device
) -> LoadedFunction:
    function = import_target("function.target", config.target)
    if not callable(function):
        raise ConfigurationError(
            f"function.target={config.target}: this is of type {type(function).__name__} and "
            "cannot be called"
        )
    if isinstance(function, type):
        raise ConfigurationError(
            f"function.target={config.target}: this is a class; valid is a function, or an object "
            "that can be called with tensors"
        )
    arguments = _argument_names(function)
    point = None
    if config.point is not None:
        point = _default_point(config.point, arguments, dtype, device)
    return LoadedFunction(
        name=config.target.rpartition(":")[2],
        function=function,
        reference=config.target,
        files=_source_files(config.target.partition(":")[0], _defining_module(function)),
        arguments=arguments,
        point=point,
        outputs=None,
    )


def _argument_names(function: Callable[..., Any]) -> tuple[str, ...] | None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(parameter.kind == inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    return tuple(
        parameter.name
        for parameter in parameters
        if parameter.kind in positional and parameter.default is inspect.Parameter.empty
    )


def _default_point(
    target: str,
    arguments: tuple[str, ...] | None,
    dtype: torch.dtype,
    device: torch.device,
) -> dict[str, Tensor]:
    point = import_target("function.point", target)
    if callable(point) and not isinstance(point, Tensor):
        try:
            point = point()
        # The user's function may fail in any way.
        except Exception as error:
            raise JobError(
                f"function.point={target}: calling it failed with {type(error).__name__}: {error}"
            ) from error
    named: dict[str, Any]
    if isinstance(point, dict):
        named = point
    else:
        tensors = point if isinstance(point, tuple | list) else (point,)
        named = dict(zip(argument_names(arguments, len(tensors)), tensors, strict=True))
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise ConfigurationError(
                f"function.point={target}: {name} is of type {type(tensor).__name__}; valid is a "
                "tensor, or a tuple or dictionary of tensors"
            )
        if tensor.is_complex() and not dtype.is_complex:
            raise ConfigurationError(
                f"function.point={target}: {name} is complex; valid are dtype=complex64 and "
                "dtype=complex128"
            )
    if arguments is not None and set(named) != set(arguments):
        raise ConfigurationError(
            f"function.point={target} gives {', '.join(named)}; the function takes "
            f"{', '.join(arguments) or 'no argument without a default'}"
        )
    order = named if arguments is None else arguments
    return {name: named[name].detach().to(device, dtype) for name in order}


def argument_names(arguments: tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    """The names of `count` arguments: the function's own where they are known and fit."""
    if arguments is not None and len(arguments) == count:
        return arguments
    return ("input",) if count == 1 else tuple(f"input{index}" for index in range(count))


def _defining_module(function: Callable[..., Any]) -> str:
    """The module of a function that may be wrapped, bound, or imported from elsewhere."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(inspect.unwrap(function), "__module__", None) or ""


def _source_files(*modules: str) -> tuple[Path, ...]:
    """The files of modules, each once, where there are some."""
    names = (getattr(sys.modules.get(module), "__file__", None) for module in modules)
    return tuple(dict.fromkeys(Path(name) for name in names if name and Path(name).exists()))
