"""Turn Hydra's DictConfig into a checked `JobConfig`; no later module sees a DictConfig."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from jobs.configuration.curvature_options import check_curvature
from jobs.configuration.device_names import no_such_devices, parse_devices
from jobs.configuration.fitting import require_all_fit
from jobs.configuration.hydra_errors import explain
from jobs.configuration.named_sources import with_named_sources
from jobs.configuration.registry import GROUPS
from jobs.configuration.schema import (
    COMPILATIONS,
    COMPRESSIONS,
    DTYPES,
    FSYNCS,
    NONFINITE_POLICIES,
    PROGRESS,
    STORED_DTYPES,
    STRATEGIES,
    VERIFY_MODES,
    BatchedLoss,
    FileSource,
    JobConfig,
    NamedSource,
    PythonFunction,
)
from jobs.configuration.selections import checked_selection
from jobs.configuration.structures import check_structure
from jobs.errors import ConfigurationError, unknown, unknown_option
from jobs.operations import OPERATIONS
from jobs.shards import check_shard
from jobs.strategies import FORWARD
from jobs.units import parse_size


def check_config(composed: DictConfig) -> JobConfig:
    """Turn a composed configuration into typed options and check all that needs no torch.

    Raises:
        ConfigurationError: An option is unknown, missing or not valid, or two do not fit.
    """
    config = typed_config(composed)
    check_together(config)
    return config


def typed_config(composed: DictConfig) -> JobConfig:
    """Turn a composed configuration into typed options; check each by itself.

    Raises:
        ConfigurationError: An option is unknown, missing or not valid.
    """
    try:
        config = OmegaConf.to_object(composed)
    except MissingMandatoryValue as error:
        raise ConfigurationError(f"{error.full_key}: a value is needed") from error
    except OmegaConfBaseException as error:
        raise ConfigurationError(explain(error)) from error
    if not isinstance(config, JobConfig):
        raise ConfigurationError(
            "--config-name: the file does not build on the options of this program; valid is one "
            "that begins with `defaults: [config, _self_]`"
        )
    _expand_home(config)
    # Hydra reads true as a truth value, which OmegaConf makes the text True.
    config.fisher.kind = config.fisher.kind.lower()
    _check_keys(composed, config, "")
    _check_groups(config)
    _check_choices(config)
    _check_values(config)
    return config


def check_together(config: JobConfig) -> None:
    """Check that the options fit together.

    Raises:
        ConfigurationError: Two of them do not.
    """
    if isinstance(config.loss, BatchedLoss) and not isinstance(config.function, PythonFunction):
        raise ConfigurationError(
            f"loss={config.loss.kind} function={config.function.name}: a loss is for "
            "function=python; the built-in problems have their own scalar forms"
        )
    data = getattr(config.function, "data", None)
    if data is not None and not isinstance(config.loss, BatchedLoss):
        raise ConfigurationError(
            f"function.data={data} loss={config.loss.kind}: batches are the data of a loss; valid "
            "are loss=own, mse, cross_entropy and python"
        )
    if check_shard(config.shard, config.shards) and config.strategy == "auto":
        raise ConfigurationError(
            f"shard={config.shard} strategy=auto: every task could choose another one; valid are "
            f"{', '.join(name for name in STRATEGIES if name != 'auto')}"
        )
    check_curvature(config)
    _check_points(config)
    if config.sparsity != "none":
        _check_sparsity(config)
    _check_direction(config)
    _check_selection(config)
    check_structure(config)


def to_yaml(config: JobConfig) -> str:
    """Return the options as YAML, for the result file; the same for all shards of a matrix."""
    # Much faster than OmegaConf.structured, which looks at the type of every option again.
    options = _plain_options(dataclasses.replace(config, shard=None, shards=None))
    return OmegaConf.to_yaml(OmegaConf.create(options))


def _plain_options(value: Any) -> Any:
    """Return dataclasses as dictionaries, without the objects of a program."""
    if not dataclasses.is_dataclass(value):
        return value
    fields = (
        each for each in dataclasses.fields(value) if not each.metadata.get("omegaconf_ignore")
    )
    return {each.name: _plain_options(getattr(value, each.name)) for each in fields}


def _expand_home(config: JobConfig) -> None:
    """Replace ``~`` at the beginning of paths, in place, as a shell does."""
    config.runs = os.path.expanduser(config.runs)
    config.sparsity = os.path.expanduser(config.sparsity)
    for holder, names in (
        (config.function, ("target", "point", "weights", "data")),
        (config.loss, ("target",)),
        (config.inputs, ("path",)),
        (config.vectors, ("path",)),
    ):
        for name in names:
            value = getattr(holder, name, None)
            if isinstance(value, str):
                setattr(holder, name, os.path.expanduser(value))


def _check_keys(composed: Mapping[Any, Any], config: Any, prefix: str) -> None:
    valid = [field.name for field in dataclasses.fields(config)]
    for key in composed:
        if key not in valid:
            raise unknown_option(f"{prefix}{key}", [prefix + name for name in valid])
    for key in valid:
        value = getattr(config, key)
        # The user deleted the option with ~option.
        if value == MISSING:
            raise ConfigurationError(f"{prefix}{key}: a value is needed")
        if dataclasses.is_dataclass(value):
            _check_keys(composed.get(key, {}), value, f"{prefix}{key}.")


def _check_groups(config: JobConfig) -> None:
    for group, key in (("function", "name"), ("wrt", "of"), ("loss", "kind"), ("verify", "mode")):
        _check_member(group, key, config)
    _check_member("points", "by", config)
    _check_member("structure", "kind", config)
    for group in ("inputs", "vectors"):
        _check_member(group, "source", config)
    with_named_sources("inputs", config.inputs)
    with_named_sources("vectors", config.vectors)


def _check_choices(config: JobConfig) -> None:
    _check_choice("op", config.op, tuple(OPERATIONS))
    _check_choice("strategy", config.strategy, STRATEGIES)
    _check_choice("dtype", config.dtype, DTYPES)
    _check_choice("compile", config.compile, COMPILATIONS)
    _check_choice("nonfinite", config.nonfinite, NONFINITE_POLICIES)
    _check_choice("verify.mode", config.verify.mode, VERIFY_MODES)
    _check_choice("progress", config.progress, PROGRESS)
    _check_choice("output.dtype", config.output.dtype, STORED_DTYPES)
    _check_choice("output.fsync", config.output.fsync, FSYNCS)
    _check_choice("output.compression", config.output.compression, COMPRESSIONS)


def _check_choice(option: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise unknown(option, value, valid)


def _check_member(group: str, key: str, config: JobConfig) -> None:
    """Check the option by which a member of a group names itself, which no user may change."""
    member = getattr(config, group)
    given = getattr(member, key)
    if GROUPS[group].get(given) is not type(member):
        raise ConfigurationError(
            f"{group}.{key}={given}: this is not set by itself; choose with {group}=, valid are "
            + ", ".join(GROUPS[group])
        )


def _check_values(config: JobConfig) -> None:
    """Check the options with values of many kinds."""
    if not isinstance(config.devices, str | list):
        raise no_such_devices(str(config.devices), "this is neither a name nor a list of names")
    parse_devices(config.devices)
    config.rows = checked_selection("rows", config.rows)
    config.columns = checked_selection("columns", config.columns)
    _check_chunk_size(config.chunk_size)
    _check_memory(config.memory)
    _check_tolerance(config.verify.tolerance)
    if not config.runs:
        raise ConfigurationError("runs=: the name of a directory is needed")
    if not 0 <= config.seed < 2**63:
        raise ConfigurationError(f"seed={config.seed}: valid is an integer from 0 to 2^63 - 1")


def _check_direction(config: JobConfig) -> None:
    """Check that the strategy can compute products from the left, if these are the operation."""
    operation = OPERATIONS[config.op]
    if config.strategy in FORWARD and operation.is_from_left:
        other = operation.from_right
        raise ConfigurationError(
            f"op={config.op} strategy={config.strategy} has no meaning: a product from the left "
            f"pulls back, and forward mode pushes forward; valid are op={config.op} with "
            f"strategy=reverse-loop or strategy=vectorize, or op={other}"
        )


def _check_points(config: JobConfig) -> None:
    """Check that all other options mean the same at each of many points, and to a batch of one."""
    points, source = config.points, config.inputs
    is_of_loss = config.loss.kind != "none"
    if points.batched and (config.wrt.of != "inputs" or (is_of_loss and not points.are_many)):
        raise ConfigurationError(
            f"points.batched=true wrt={config.wrt.of} loss={config.loss.kind}: a point goes in as "
            "a batch of one, with wrt=inputs, and with a loss at each of many points; of the data "
            "of a loss at one point the leading dimension is that of the batch"
        )
    if points.offsets is not None and points.by != "offsets":
        raise ConfigurationError(
            f"points.offsets={points.offsets} points={points.by}: offsets are for points=offsets "
            "only"
        )
    if not points.are_many:
        return
    _check_points_of_a_loss(config)
    is_of_files = isinstance(source, FileSource) or (
        isinstance(source, NamedSource)
        and all(isinstance(each, FileSource) for each in source.tensors.values())
    )
    conflicts = {
        f"op={config.op}": not OPERATIONS[config.op].is_product,
        f"wrt={config.wrt.of}": config.wrt.of == "inputs",
        f"verify={config.verify.mode}": config.verify.mode != "sample",
        f"dtype={config.dtype}": not config.dtype.startswith("complex"),
        f"output.tile={config.output.tile}": config.output.tile is None,
    }
    require_all_fit(
        f"points={points.by}",
        conflicts,
        "many points go with op=jacobian, hessian, ggn or fisher, with respect to inputs "
        "(wrt=inputs), of which there is one set for each point, while there is one set of "
        "parameters only; in real dtypes, with verify=probe or off, and no output.tile",
    )
    if points.by == "files" and not is_of_files:
        raise ConfigurationError(
            f"points=files inputs={source.source}: a file is a point here; valid are sources with "
            "a path, such as inputs=numpy inputs.path='geometries/*.npy'"
        )


def _check_points_of_a_loss(config: JobConfig) -> None:
    """Check that the data of a loss at many points are those of each point.

    Raises:
        ConfigurationError: They come in batches.
    """
    loss, given = config.loss, f"points={config.points.by}"
    data = getattr(config.function, "data", None)
    if data is not None:
        raise ConfigurationError(
            f"function.data={data} {given}: of many points each has its own data, labels among "
            "them, as arrays of inputs=; batches of function.data belong to no point"
        )
    if isinstance(loss, BatchedLoss) and loss.batch_size is not None:
        raise ConfigurationError(
            f"loss.batch_size={loss.batch_size} {given}: the data of a point are evaluated at "
            "once; valid is null, and memory= limits how many points are"
        )


def _check_selection(config: JobConfig) -> None:
    """Check that rows and columns are selected where they have a meaning."""
    selections = {"rows": config.rows, "columns": config.columns}
    given = " ".join(f"{name}={value}" for name, value in selections.items() if value is not None)
    if not given:
        return
    if OPERATIONS[config.op].is_product:
        raise ConfigurationError(
            f"{given} op={config.op}: rows and columns are selected of a matrix, and a product has "
            "one row for each vector; valid are op=jacobian, hessian, ggn and fisher"
        )
    if config.output.tile is not None:
        raise ConfigurationError(
            f"{given} output.tile={config.output.tile}: the tile of a part is left to the layout"
        )


def _check_sparsity(config: JobConfig) -> None:
    """Check that all other options fit a sparse matrix."""
    if config.sparsity != "auto" and not config.sparsity.endswith(".npz"):
        raise ConfigurationError(
            f"sparsity={config.sparsity}: valid are none, auto and the .npz file of a pattern or "
            "colouring"
        )
    operation = OPERATIONS[config.op]
    conflicts = {
        f"op={config.op}": not (operation.is_product or operation.is_curvature),
        f"points={config.points.by}": not config.points.are_many,
        f"verify={config.verify.mode}": config.verify.mode != "sample",
        f"dtype={config.dtype}": not config.dtype.startswith("complex"),
        f"output.tile={config.output.tile}": config.output.tile is None,
    }
    require_all_fit(
        f"sparsity={config.sparsity}",
        conflicts,
        "a sparse matrix goes with op=jacobian or op=hessian, at one point, with verify=probe or "
        "off, real dtypes and no output.tile",
    )


def _check_chunk_size(value: int | str) -> None:
    # Digits in quotes are text.
    if value != "auto" and not (str(value).isdecimal() and int(value) >= 1):
        raise ConfigurationError(f"chunk_size={value}: valid are auto and integers from 1 on")


def _check_tolerance(value: float | None) -> None:
    if value is not None and not 0 < value < 1:
        raise ConfigurationError(
            f"verify.tolerance={value}: valid are null and relative errors between 0 and 1, such "
            "as 1e-6"
        )


def _check_memory(value: str) -> None:
    try:
        if value != "auto":
            parse_size(value)
    except ValueError:
        raise ConfigurationError(
            f"memory={value}: valid are auto and a size such as 8GiB, 512MiB or 4GB"
        ) from None
