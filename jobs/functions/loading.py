"""Load the function of a job: a built-in problem or the user's own."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.nn import Module

from jobs import problems
from jobs.configuration.schema import OWN_MODE, FunctionConfig, LiveFunction, PythonFunction
from jobs.errors import ConfigurationError, JobError
from jobs.functions.calling import Signature, argument_names, named_like_arguments, signature_of
from jobs.functions.conversions import Conversion
from jobs.functions.importing import import_module, import_target, imported
from jobs.functions.instantiation import TARGET, applied, instantiated
from jobs.functions.kept_values import KeptValues
from jobs.functions.keyword_tensors import with_tensors
from jobs.functions.live.identity import identity_of
from jobs.functions.modules import prepared_module
from jobs.functions.references import identity, reference, target_text, targets_of
from jobs.functions.source_code import modules_of, project_modules
from jobs.functions.tracebacks import error_with_frames, one_line
from jobs.machine.accelerator import seed_generators
from jobs.operations import OPERATIONS
from jobs.problems import load_builder
from jobs.sources.plain_tensors import plain

_SCALAR_PROBLEMS = "rosenbrock, mlp_parameters, pairwise_energy and gp_residual"


@dataclass(frozen=True)
class LoadedFunction:
    """A function that is ready to be called.

    Attributes:
        name: The name of the function in file names and reports.
        function: The function; its arguments are the tensors of the point.
        reference: The text by which reports name it: the name and all parameters.
        identity: The text by which the fingerprint identifies it.
        files: The source files in which it is defined and from which it is imported.
        arguments: The names of the arguments that it needs, in order; None if they are unknown.
        point: The default point, or the point of the job, by argument name; None if it has none.
        outputs: The names of its outputs in order; None if they are unknown.
        output: The name or the position of the output that is differentiated; None for all.
        origin: Where the default point comes from, for messages.
        module: The function as a torch.nn.Module; None if it is not one.
        signature: All its parameters; None if they are unknown, or those of a built-in problem.
        failures: The directory in which the point is saved when the function fails; None saves
            nothing.
        conversions: What was done to the parameters and buffers of the module.
        modules: The modules that the options name and that define the user's function.
        parts: The modules that define the objects of which it is made.
        notes: What the user should know of it, as sentences.
        kept: What the user's objects hold before the first evaluation.
        is_batched: Whether it takes a batch, so that a point goes in as a batch of one.
        changed: The names of the constants that its evaluations have changed in place.
    """

    name: str
    function: Callable[..., Any]
    reference: str
    identity: str
    files: tuple[Path, ...]
    arguments: tuple[str, ...] | None
    point: dict[str, Tensor] | None
    outputs: tuple[str, ...] | None
    origin: str = "inputs=default"
    module: Module | None = None
    signature: Signature | None = None
    failures: Path | None = None
    conversions: tuple[Conversion, ...] = ()
    modules: tuple[ModuleType, ...] = ()
    parts: tuple[ModuleType, ...] = ()
    notes: tuple[str, ...] = ()
    kept: KeptValues | None = None
    output: str | None = None
    is_batched: bool = False
    changed: set[str] = field(default_factory=set)


def load_function(
    config: FunctionConfig,
    operation: str,
    dtype: torch.dtype,
    device: torch.device,
    label: str | None = None,
    seed: int = 0,
) -> LoadedFunction:
    """Load the function that the option `function` names.

    Args:
        config: The option.
        operation: The operation of the job: second-order operations need the scalar form.
        dtype: The dtype of the default point.
        device: The device of the default point.
        label: The name of an input besides the function's arguments, with which a loss compares
            the output; None if there is none.
        seed: The seed of torch's generators while the function is created: a module draws its
            weights.

    Raises:
        JobError: The function does not exist or cannot be created, or the operation has no meaning
            for it.
    """
    if isinstance(config, PythonFunction):
        return _load_python(config, dtype, device, label, seed)
    return _load_problem(config, operation, dtype, device)


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
        raise ConfigurationError(one_line(error)) from error
    # torch refuses sizes beyond its integers, or beyond the memory.
    except (RuntimeError, OverflowError, MemoryError) as error:
        raise ConfigurationError(f"function={config.name}: {one_line(error)}") from error
    function = problem.function
    if OPERATIONS[operation].is_second_order:
        if problem.scalar is None:
            raise ConfigurationError(
                f"op={operation} function={config.name} has no meaning: a Hessian needs a scalar "
                f"function, and this one returns a vector; valid are op=jacobian, or one of the "
                f"functions {_SCALAR_PROBLEMS}"
            )
        function = problem.scalar
    reference = f"{config.name}({', '.join(f'{k}={v}' for k, v in options.items())})"
    return LoadedFunction(
        name=config.name,
        function=function,
        reference=reference,
        identity=reference,
        files=tuple(sorted(Path(problems.__file__).parent.glob("*.py"))),
        arguments=tuple(problem.point),
        point=problem.point,
        outputs=problem.outputs if not OPERATIONS[operation].is_second_order else None,
    )


def _load_python(
    config: PythonFunction,
    dtype: torch.dtype,
    device: torch.device,
    label: str | None,
    seed: int,
) -> LoadedFunction:
    # Import before seeding: a module draws numbers while it is imported only in the first job of a
    # sweep.
    for text in [*targets_of(config)][:1]:
        if ":" in text:
            import_module("function.target", text)
    seed_generators(seed)
    is_live = isinstance(config, LiveFunction)
    target, function = (
        (config.held, config.held) if is_live else _make(_with_tensors(config, dtype, device))
    )
    function = _module_of_program(function)
    _require_callable(f"function.target={target_text(config)}", function)
    if is_live and config.is_own:
        _require_same(config)
    module = None
    conversions: list[Conversion] = []
    parts = imported(config.modules) if is_live else modules_of((target, function))
    if isinstance(function, Module):
        is_shared = function is target and not (is_live and config.is_own)
        module = function = prepared_module(
            config, function, dtype, device, conversions, is_shared=is_shared
        )
    elif config.weights is not None:
        raise ConfigurationError(
            f"function.weights={config.weights}: weights are for a torch.nn.Module; "
            f"{target_text(config)} is of type {type(function).__name__}"
        )
    # Of a live function its identity covers what the source of a module would.
    defining = () if is_live else (_defining_module(target), _defining_module(function))
    modules = (*_named_modules(config), *(each for each in defining if each is not None))
    signature = signature_of(function)
    arguments = _with_label(signature, label)
    return LoadedFunction(
        name=_name(target, config),
        function=function,
        reference=reference(config),
        identity=identity(config),
        files=_source_files(modules or project_modules(parts)),
        arguments=arguments,
        point=None if config.point is None else _default_point(config.point, arguments, signature),
        outputs=None,
        origin=f"function.point={config.point}",
        module=module,
        conversions=tuple(conversions),
        modules=modules,
        parts=parts,
        signature=signature,
        output=config.output,
        notes=_notes_of(config, module),
        kept=KeptValues(function),
    )


def _require_same(config: LiveFunction) -> None:
    """Check that a function that came from another process is the one that was sent.

    Raises:
        JobError: The modules that it needs are others here.
    """
    name = config.target if config.named else None
    found = identity_of(config.held, config.target, name=name, flags=config.mode == OWN_MODE)
    if found.sha256 != config.identity:
        raise JobError(
            f"function={config.target}: another process loads other modules from the disk than "
            f"this one has in memory ({', '.join(found.modules)}); load them again, or restart"
        )


def _notes_of(config: PythonFunction, module: Module | None) -> tuple[str, ...]:
    if module is None or config.mode != OWN_MODE or not module.training:
        return ()
    return (
        "the module is in training mode, as it was passed; its method eval(), called before, gives "
        "the derivative in evaluation mode",
    )


def _with_tensors(
    config: PythonFunction, dtype: torch.dtype, device: torch.device
) -> PythonFunction:
    """Read the sources among the arguments of a function."""
    keywords = with_tensors("function.keywords", config.keywords, dtype, device)
    target = config.target
    if isinstance(target, Mapping):
        target = with_tensors("function.target", target, dtype, device)
    return dataclasses.replace(config, keywords=keywords, target=target)


def _with_label(signature: Signature | None, label: str | None) -> tuple[str, ...] | None:
    """Return the names of the arguments that a source must give, the labels among them."""
    if signature is None:
        return None
    if label is None:
        return signature.required if signature.is_counted else None
    if label in signature.names:
        raise ConfigurationError(
            f"loss.label={label}: the function has an argument of this name; choose another one "
            "for the labels"
        )
    return (*signature.required, label) if signature.is_counted else None


def _make(config: PythonFunction) -> tuple[Any, Any]:
    """Return the object that the target names, and the function made of it with the keywords."""
    option = f"function.target={target_text(config)}"
    if isinstance(config.target, Mapping):
        if TARGET not in config.target:
            raise ConfigurationError(f"{option}: a mapping needs {TARGET}, an import path")
        if config.keywords or config.factory:
            raise ConfigurationError(
                f"{option}: a mapping holds its arguments itself; function.keywords and "
                "function.factory are for an import path"
            )
        function = instantiated(option, config.target)
        target = function.func if isinstance(function, functools.partial) else function
    else:
        target = import_target("function.target", str(config.target))
        _require_callable(option, target)
        call = config.factory or isinstance(target, type)
        function = applied(option, target, config.keywords, call=call)
    return target, function


def _module_of_program(function: Any) -> Any:
    """Return the module of a program of torch.export, which cannot be called itself."""
    return function.module() if isinstance(function, ExportedProgram) else function


def _require_callable(option: str, function: Any) -> None:
    if not callable(function):
        raise ConfigurationError(
            f"{option}: this is of type {type(function).__name__} and cannot be called"
        )


def _name(target: Any, config: PythonFunction) -> str:
    text = target_text(config)
    if isinstance(config, LiveFunction):
        return text
    return text.rpartition(":" if ":" in text else ".")[2]


def _named_modules(config: PythonFunction) -> Iterator[ModuleType]:
    """Yield the modules, imported before, of the target and of all targets in the arguments."""
    for text in targets_of(config):
        if ":" in text:
            yield import_module("function.target", text)
        elif (module := sys.modules.get(text.rpartition(".")[0])) is not None:
            yield module


def _default_point(
    target: str, arguments: tuple[str, ...] | None, signature: Signature | None
) -> dict[str, Tensor]:
    point = import_target("function.point", target)
    if callable(point) and not isinstance(point, Tensor):
        try:
            point = point()
        # The user's function may raise anything.
        except Exception as error:
            raise JobError(
                f"function.point={target}: calling it failed with {error_with_frames(error)}"
            ) from error
    named: dict[str, Any]
    if isinstance(point, dict):
        named = point
    else:
        tensors = point if isinstance(point, tuple | list) else (point,)
        names = argument_names(arguments, len(tensors), signature)
        named = dict(zip(names, tensors, strict=True))
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise ConfigurationError(
                f"function.point={target}: {name} is of type {type(tensor).__name__}; valid is a "
                "tensor, or a tuple or dictionary of tensors"
            )
    named = named_like_arguments(f"function.point={target}", named, arguments, signature)
    return {name: plain(each, f"function.point={target}, {name}") for name, each in named.items()}


def _defining_module(function: Any) -> ModuleType | None:
    """Return the module that defines a function, which may be wrapped, bound or imported."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, Module):
        function = type(function)
    name = getattr(inspect.unwrap(function), "__module__", None)
    return sys.modules.get(name or "")


def _source_files(modules: tuple[ModuleType, ...]) -> tuple[Path, ...]:
    """Return the files of modules that have one, each file once."""
    names = (getattr(module, "__file__", None) for module in modules)
    return tuple(dict.fromkeys(Path(name) for name in names if name and Path(name).exists()))
