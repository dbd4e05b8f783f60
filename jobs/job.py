"""Make a job of checked options: a function, a point and all that determines the numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from autodiff_core import is_out_of_memory
from jobs.configuration.checks import to_yaml
from jobs.configuration.schema import JobConfig, LiveSource, PythonFunction
from jobs.errors import ConfigurationError, JobError
from jobs.fingerprint import fingerprint, source_of
from jobs.functions.arguments import load_arguments
from jobs.functions.batches import Batches, load_batches
from jobs.functions.blocks import BlocksFunction, groups_of, with_blocks
from jobs.functions.conversions import Conversion, lossy
from jobs.functions.loading import LoadedFunction, load_function
from jobs.functions.losses import label_of
from jobs.functions.part import Part
from jobs.functions.parts import outputs_at_point, part_of
from jobs.functions.points import choose_at_points
from jobs.functions.ragged import RaggedFunction
from jobs.functions.real_points import require_real_point
from jobs.functions.references import content_digest
from jobs.functions.returned_values import nested
from jobs.functions.source_code import SourceCode
from jobs.functions.stages import Observed, Stage
from jobs.functions.tracebacks import one_line
from jobs.functions.variables import Variables, choose_variables
from jobs.functions.vectors import load_vectors, vectors_to_draw
from jobs.machine.accelerator import seed_generators
from jobs.machine.devices import choose_devices
from jobs.operations import OPERATIONS
from jobs.paths import RunPaths, failure_directory
from jobs.run_directory import run_paths
from jobs.shards import check_shard
from jobs.sources.source_array import SourceArray
from jobs.units import parse_size
from outputs import DrawnVectors


@dataclass(frozen=True)
class Job:
    """A job that is ready to be planned.

    Attributes:
        operation: The operation: ``jacobian``, ``hessian``, ``ggn``, ``fisher`` or a product.
        strategy: The strategy's name; ``auto`` leaves the choice to the plan.
        function: The function with the names of its arguments and outputs.
        point: Argument name to tensor.
        vectors: The vectors of a product by tensor name, stacked; else empty.
        drawn: What the vectors of a product are drawn from; None if they are in `vectors`.
        dtype: The dtype of the point.
        devices: The devices that compute, each by a process of its own.
        chunk_size: The number of rows or columns computed at once; None leaves it to the plan.
        compile: Whether derivatives are compiled: ``auto``, ``never`` or ``always``.
        seed: The seed of torch's generators.
        memory: The bytes that the job may use; None takes a share of what is free.
        verify: How much of the result is verified: ``probe``, ``sample`` or ``off``.
        differences: Whether the derivative is compared with finite differences of the function.
        tolerance: The largest relative error that passes; None for that of the dtype.
        nonfinite: What happens to entries that are not finite: ``record`` or ``fail``.
        storage: The dtype in which the matrix is stored; None stores it as it is computed.
        tile: The shape of a tile of the stored matrix; None leaves it to the layout.
        fsync: When data must be on the disk: ``block`` or ``end``.
        compression: The filter of the stored matrix: ``none`` or ``gzip``.
        sparsity: ``none``, ``auto``, or the file of a pattern or colouring.
        points: The number of points at which the derivative is taken; None for a single one.
        shard: Index and count of the part that is computed; None computes the whole matrix.
        fingerprint: The hash of what determines the numbers.
        source: The source that the fingerprint covers.
        paths: The paths of the job's files.
        config: The options.
        structure: Which entries of the matrix are kept: ``full``, those of its ``diagonal``, or its
            diagonal ``blocks``; the function is then a `BlocksFunction`, and the point in the order
            of the blocks.
        compressed: The side, ``right`` or ``left``, from which the job computes compressed products
            of a sparse matrix; None for any other job.
        observed: What is known of the arithmetic of the function; None until it is looked for.
        conversions: What was cast, moved and frozen of the user's arrays and module.
        notes: What the user should know before the job computes, as sentences.
        dense_reason: Why the matrix is computed densely although `sparsity` is not ``none``; empty
            if it is not.
        excluded: What the job does without, and why: the names of strategies that ``auto`` does not
            consider, ``route <name>`` for a route of the check, and ``differences``.
        part: The part of the matrix that is computed; None for the whole matrix. Function and point
            are those of the part.
        is_ragged: Whether there are matrices of different sizes: diagonal blocks, or those of many
            points; the function of these is a `RaggedFunction` of the numbers of all of them, and
            `points` None.
        required: Whether the job ends with an error if its result is not verified.
    """

    operation: str
    strategy: str
    function: LoadedFunction
    point: dict[str, Tensor]
    vectors: dict[str, Tensor]
    dtype: torch.dtype
    devices: tuple[torch.device, ...]
    chunk_size: int | None
    compile: str
    seed: int
    memory: int | None
    verify: str
    differences: bool
    tolerance: float | None
    nonfinite: str
    storage: torch.dtype | None
    tile: tuple[int, int] | None
    fsync: Literal["block", "end"]
    compression: str
    sparsity: str
    points: int | None
    shard: tuple[int, int] | None
    fingerprint: str
    source: SourceCode
    paths: RunPaths
    config: JobConfig
    structure: str = "full"
    compressed: str | None = None
    dense_reason: str = ""
    observed: Observed | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)
    part: Part | None = None
    drawn: DrawnVectors | None = None
    required: bool = False
    is_ragged: bool = False
    conversions: tuple[Conversion, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def stage(self) -> Stage | None:
        """The least precise stage of the function, where that is less precise than the point."""
        return None if self.observed is None else self.observed.stage

    @property
    def no_forward(self) -> str:
        """Why no tangent passes through the function, as a clause; empty where none is known."""
        return "" if self.observed is None else self.observed.no_forward

    @property
    def configuration(self) -> str:
        """All options as YAML."""
        return to_yaml(self.config)

    @property
    def device(self) -> torch.device:
        """The first device, on which the function is built and the check is computed."""
        return self.devices[0]

    @property
    def inputs(self) -> Any:
        """The point as `autodiff_core` takes it: a tensor, or the tuple of arguments."""
        return nested(self.point)

    @property
    def first_point(self) -> list[Tensor]:
        """The tensors of the point; of many points, of the first."""
        tensors = list(self.point.values())
        return tensors if self.points is None else [tensor[0] for tensor in tensors]

    @property
    def whole_point(self) -> dict[str, Tensor]:
        """The point of the whole matrix, of which the job may compute a part or blocks."""
        if isinstance(function := self.function.function, BlocksFunction):
            return function.whole_point
        return self.point if self.part is None else self.part.point


def resolve(config: JobConfig, devices: tuple[torch.device, ...] | None = None) -> Job:
    """Load the function, the point and the vectors, and determine the directory of the run.

    Args:
        config: The options.
        devices: The devices that are held for the job; None takes those that the options name.

    Raises:
        JobError: Something does not exist or does not fit.
    """
    _refuse_lost_imaginary_parts()
    devices = devices or choose_devices(config.devices, config.dtype)
    dtype = getattr(torch, config.dtype)
    seed_generators(config.seed)
    notes: list[str] = []
    with _loading_to(devices[0]):
        variables = _variables(config, dtype, devices[0], notes)
        conversions = list(variables.conversions)
        vectors, drawn = _vectors(config, variables, dtype, devices[0], conversions)
    part = part_of(config, variables)
    if part is not None:
        variables = replace(variables, choices={**variables.choices, **part.choices()})
    function = part.function if part else variables.function
    point = part.selected if part else variables.point
    if config.structure.kind == "blocks":
        groups = groups_of(config.structure, variables.point)
        choices = {**variables.choices, "structure": ["blocks", groups]}
        variables = replace(variables, choices=choices)
        function, point = with_blocks(variables, groups)
    shard = check_shard(config.shard, config.shards)
    is_ragged = isinstance(function.function, RaggedFunction | BlocksFunction)
    source = source_of(function, config.loss)
    digest = fingerprint(config, variables, drawn or vectors, source)
    return Job(
        operation=config.op,
        strategy=config.strategy,
        function=function,
        point=point,
        vectors=vectors,
        dtype=dtype,
        devices=devices,
        chunk_size=None if config.chunk_size == "auto" else int(config.chunk_size),
        compile=config.compile,
        seed=config.seed,
        memory=None if config.memory == "auto" else parse_size(config.memory),
        verify=config.verify.mode,
        differences=config.verify.differences,
        tolerance=config.verify.tolerance,
        nonfinite=config.nonfinite,
        storage=_storage(config.output.dtype, dtype),
        tile=_tile(config.output.tile),
        fsync="block" if config.output.fsync == "block" else "end",
        compression=config.output.compression,
        sparsity=config.sparsity,
        points=None if is_ragged else _points(config, point),
        shard=shard,
        fingerprint=digest,
        source=source,
        paths=run_paths(config.runs, function.name, config.op, config.strategy, digest, shard),
        config=config,
        structure=config.structure.kind,
        part=part,
        is_ragged=is_ragged,
        drawn=drawn,
        required=config.verify.required,
        conversions=tuple(conversions),
        notes=(*function.notes, *notes, *lossy(conversions), *_note_of(source)),
    )


def _note_of(source: SourceCode) -> list[str]:
    left_out = source.left_out
    return [f"a change of {left_out} does not make another job"] if left_out else []


@contextmanager
def _loading_to(device: torch.device) -> Iterator[None]:
    """Say in one sentence that a device has too little memory for what the body loads."""
    try:
        yield
    except Exception as error:
        if isinstance(error, JobError) or not is_out_of_memory(error):
            raise
        raise JobError(
            f"devices={device}: out of memory while the function, its inputs and vectors were "
            f"loaded ({one_line(error)}); other processes may hold memory there, devices= names "
            "another device, and a smaller dtype takes less"
        ) from error


def _refuse_lost_imaginary_parts() -> None:
    """Let this program's own code fail where it would convert complex numbers to real ones."""
    warnings.filterwarnings(
        "error",
        message="Casting complex values to real",
        module=r"(jobs|autodiff_core|outputs)\.",
    )


def _variables(
    config: JobConfig, dtype: torch.dtype, device: torch.device, notes: list[str]
) -> Variables:
    """Load the function and its arguments, and split the arguments into point and constants."""
    function = load_function(
        config.function, config.op, dtype, device, label_of(config.loss), config.seed
    )
    arguments, batches = _data(config, function, dtype, notes)
    function = replace(function, is_batched=config.points.batched)
    if config.points.are_many:
        variables = choose_at_points(function, arguments, config, dtype, device, _curvature(config))
    else:
        variables = choose_variables(
            function,
            arguments,
            config.wrt,
            config.loss,
            dtype,
            device,
            batches,
            _curvature(config),
        )
    require_real_point(config, variables.point)
    notes += variables.notes
    choices = dict(variables.choices)
    if config.op == "fisher":
        choices["fisher"] = config.fisher.kind
    if config.structure.kind == "diagonal":
        choices["structure"] = "diagonal"
    # The same array is another problem with and without a dimension over points.
    if config.points.are_many and "points" not in choices:
        choices["points"] = _points(config, variables.point)
    if config.sparsity != "none":
        choices["sparsity"] = _pattern(config.sparsity)
    # A program that passes the point has it.
    is_held = isinstance(config.inputs, LiveSource)
    failures = None if is_held else failure_directory(config.runs)
    function = replace(variables.function, failures=failures)
    return replace(variables, function=function, choices=choices)


def _data(
    config: JobConfig, function: LoadedFunction, dtype: torch.dtype, notes: list[str]
) -> tuple[dict[str, SourceArray], Batches | None]:
    """Load the arguments, and the batches that give the others, if the options name some."""
    batches = None
    if isinstance(config.function, PythonFunction) and config.function.data is not None:
        batches = load_batches(config.function, config.loss, function, config.seed)
        notes += batches.notes
        function = batches.rest_of(function)
        if config.inputs.source == "default":
            batches.require_all(function)
            return {}, batches
    return load_arguments(config.inputs, function, dtype, config.points, notes.append), batches


def _curvature(config: JobConfig) -> str | None:
    """Return how a curvature matrix is made: as ``ggn`` or as ``fisher``; None for others.

    The Fisher matrix of the distributions whose negative logarithms are mse and cross entropy is
    their Gauss-Newton matrix (J. Martens, "New insights and perspectives on the natural gradient
    method", JMLR 21, 2020).
    """
    if not OPERATIONS[config.op].is_curvature:
        return None
    return "fisher" if config.op == "fisher" and config.fisher.kind == "empirical" else "ggn"


def _vectors(
    config: JobConfig,
    variables: Variables,
    dtype: torch.dtype,
    device: torch.device,
    conversions: list[Conversion],
) -> tuple[dict[str, Tensor], DrawnVectors | None]:
    if not OPERATIONS[config.op].is_product:
        return {}, None
    like = outputs_at_point(config, variables) if config.op == "vjp" else variables.point
    if drawn := vectors_to_draw(config.vectors, like, dtype):
        return {}, drawn
    return load_vectors(config.vectors, like, dtype, device, conversions), None


def _pattern(sparsity: str) -> str:
    """Return ``auto``, or the hash of the pattern in a file, which is read when the job begins."""
    file = Path(sparsity)
    return content_digest(file) if sparsity != "auto" and file.is_file() else sparsity


def _points(config: JobConfig, point: dict[str, Tensor]) -> int | None:
    if not config.points.are_many:
        return None
    return len(next(iter(point.values())))


def _storage(name: str, dtype: torch.dtype) -> torch.dtype | None:
    if name == "auto":
        return None
    storage = getattr(torch, name)
    if dtype.is_complex and not storage.is_complex:
        raise ConfigurationError(
            f"output.dtype={name}: the matrix is complex; valid are auto, complex64 and complex128"
        )
    return storage


def _tile(tile: list[int] | None) -> tuple[int, int] | None:
    if tile is None:
        return None
    if len(tile) != 2 or min(tile) < 1:
        raise ConfigurationError(
            f"output.tile={tile}: valid is [rows,columns] with at least one of each"
        )
    return tile[0], tile[1]
