"""Describe a job for its result file, before the first block is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autodiff_core import AxisLayout
from jobs.errors import ConfigurationError
from jobs.functions.blocks import BlocksFunction
from jobs.functions.evaluation import evaluated
from jobs.functions.failures import explaining_failures
from jobs.functions.part import Part
from jobs.functions.ragged import RaggedFunction
from jobs.functions.returned_values import named_outputs
from jobs.functions.selections import AxisTensor, SelectedAxis
from jobs.job import Job
from jobs.operations import OPERATIONS
from jobs.records.provenance import git_commit, provenance
from jobs.shards import share
from jobs.streams.at_points import values_of_points
from jobs.streams.stream import Stream, stored_dtype, to_numpy
from outputs import Axis, Probes, ResultDescription, Selection, Shard, TensorSpec

_Specs = tuple[TensorSpec, ...]


def describe(job: Job, stream: Stream, strategy: str, commit: str) -> ResultDescription:
    """Describe a dense result.

    Args:
        job: The job.
        stream: The blocks of its matrix.
        strategy: The strategy that computes them.
        commit: The commit of the function, from `git_commit`; empty if there is none.
    """
    if isinstance(function := job.function.function, RaggedFunction):
        return _describe_ragged(job, function, stream, strategy, commit)
    outputs = named_outputs(job.function, stream.value)
    rows, columns, rows_are_tuple, columns_are_tuple = _axes(job, stream, tuple(outputs))
    if job.structure == "diagonal":
        dtype = str(stream.dtype).removeprefix("torch.")
        columns, columns_are_tuple = (TensorSpec("diagonal", (), dtype),), False
    is_product = OPERATIONS[job.operation].is_product
    return ResultDescription(
        operation=job.operation,
        strategy=strategy,
        function=job.function.reference,
        fingerprint=job.fingerprint,
        axis=stored_axis(job, stream),
        rows=rows,
        columns=columns,
        dtype=str(stored_dtype(job.storage or stream.dtype)),
        rows_are_tuple=rows_are_tuple,
        columns_are_tuple=columns_are_tuple,
        point=arrays(job.whole_point),
        value=arrays(outputs if job.part is None else whole_outputs(job, job.part)),
        # The vectors of compressed products follow from the colouring, and are as large as the
        # result.
        vectors=arrays(job.vectors) if job.compressed is None else {},
        configuration=job.configuration,
        provenance=provenance(job, commit),
        tile=job.tile,
        compression="gzip" if job.compression == "gzip" else "none",
        shard=_shard(job, stream),
        points=job.points,
        selection=None if is_product else _selection(job.part),
        drawn_vectors=job.drawn,
        structure=job.structure,
        is_ragged=job.is_ragged,
        groups=_groups(job),
    )


def stored_axis(job: Job, stream: Stream) -> Axis:
    """Return the axis along which blocks are written: a diagonal is one column.

    Args:
        job: The job.
        stream: The blocks of its matrix, of which a diagonal is taken.
    """
    return Axis.ROWS if job.structure == "diagonal" else Axis(stream.axis)


def _groups(job: Job) -> tuple[int, ...]:
    function = job.function.function
    blocks = function.blocks if isinstance(function, BlocksFunction) else ()
    return tuple(len(block.names) for block in blocks)


def _describe_ragged(
    job: Job, function: RaggedFunction, stream: Stream, strategy: str, commit: str
) -> ResultDescription:
    """Describe a result of many points of different sizes."""
    if job.part is not None:
        assert isinstance(job.part.whole.function, RaggedFunction)
        function = job.part.whole.function
    (numbers,) = job.whole_point.values()
    points = [dict(zip(p.names, p.tensors(numbers), strict=True)) for p in function.points]
    outputs = function.outputs
    columns = tuple(spec for point in points for spec in _specs_at(point))
    rows = columns if function.is_second_order else tuple(s for o in outputs for s in _specs_at(o))
    if job.part is not None:
        rows, columns = _specs_of(job.part.rows), _specs_of(job.part.columns)
    inputs_are_tuple, outputs_are_tuple = len(points[0]) > 1, len(outputs[0]) > 1
    return ResultDescription(
        operation=job.operation,
        strategy=strategy,
        function=job.function.reference,
        fingerprint=job.fingerprint,
        axis=Axis.ROWS,
        rows=rows,
        columns=columns,
        dtype=str(stored_dtype(job.storage or stream.dtype)),
        rows_are_tuple=inputs_are_tuple if function.is_second_order else outputs_are_tuple,
        columns_are_tuple=inputs_are_tuple,
        point=_one_after_another(points),
        value=_one_after_another(outputs),
        vectors={},
        configuration=job.configuration,
        provenance=provenance(job, commit),
        points=len(points),
        selection=_selection(job.part),
        is_ragged=True,
    )


def _specs_at(tensors: Mapping[str, Tensor]) -> _Specs:
    return _specs(tuple(tensors), AxisLayout.of(list(tensors.values())))


def _one_after_another(points: Sequence[Mapping[str, Tensor]]) -> dict[str, np.ndarray]:
    return {
        name: to_numpy(torch.cat([point[name].reshape(-1) for point in points]))
        for name in points[0]
    }


def require_storage(job: Job, dtype: torch.dtype) -> None:
    """Refuse to store complex entries as real ones, which would lose the imaginary parts.

    Args:
        job: The job, with the dtype of the stored matrix, if one is chosen.
        dtype: The dtype of the entries.

    Raises:
        ConfigurationError: The entries are complex, and the chosen dtype is not.
    """
    if dtype.is_complex and job.storage is not None and not job.storage.is_complex:
        raise ConfigurationError(
            f"output.dtype={str(job.storage).removeprefix('torch.')}: the matrix is complex; valid "
            "are auto, complex64 and complex128"
        )


def _axes(job: Job, stream: Stream, outputs: tuple[str, ...]) -> tuple[_Specs, _Specs, bool, bool]:
    """Return the tensors of rows and of columns, and whether each side is a tuple of tensors."""
    inputs = tuple(job.point)
    inputs_are_tuple = len(job.whole_point) > 1
    outputs_are_tuple = not isinstance(stream.value, Tensor)
    if OPERATIONS[job.operation].is_product:
        rows = (TensorSpec("vectors", (stream.rows.size,), "int64"),)
        if job.operation == "jvp":
            return rows, _specs(outputs, stream.columns), False, outputs_are_tuple
        return rows, _specs(inputs, stream.columns), False, inputs_are_tuple
    if job.part is not None:
        is_second_order = OPERATIONS[job.operation].is_second_order
        rows_are_tuple = inputs_are_tuple if is_second_order else outputs_are_tuple
        return (
            _specs_of(job.part.rows),
            _specs_of(job.part.columns),
            rows_are_tuple,
            inputs_are_tuple,
        )
    layout = AxisLayout.of(list(job.point.values())) if job.is_ragged else stream.columns
    columns = _specs(inputs, layout)
    if job.is_ragged:
        return columns, columns, inputs_are_tuple, inputs_are_tuple
    if OPERATIONS[job.operation].is_second_order:
        return _specs(inputs, stream.rows), columns, inputs_are_tuple, inputs_are_tuple
    return _specs(outputs, stream.rows), columns, outputs_are_tuple, inputs_are_tuple


def describe_sparse(
    job: Job, value: Any, strategy: str, dtype: torch.dtype, probes: Probes | None
) -> ResultDescription:
    """Describe a sparse result.

    Args:
        job: The job, a Jacobian or Hessian.
        value: What the function returns at the point.
        strategy: The strategy or strategies that computed the compressed products.
        dtype: The dtype of the entries.
        probes: The products that verify the matrix; None if it is not verified.
    """
    outputs = named_outputs(job.function, value)
    is_second_order = OPERATIONS[job.operation].is_second_order
    leaves = job.point if is_second_order else outputs
    with git_commit(job) as commit:
        origin = provenance(job, commit())
    inputs_are_tuple = len(job.whole_point) > 1
    outputs_are_tuple = not isinstance(value, Tensor)
    return ResultDescription(
        operation=job.operation,
        strategy=strategy,
        function=job.function.reference,
        fingerprint=job.fingerprint,
        axis=Axis.ROWS,
        rows=_specs(tuple(leaves), AxisLayout.of(list(leaves.values()))),
        columns=_specs(tuple(job.point), AxisLayout.of(list(job.point.values()))),
        dtype=str(stored_dtype(dtype)),
        rows_are_tuple=inputs_are_tuple if is_second_order else outputs_are_tuple,
        columns_are_tuple=inputs_are_tuple,
        point=arrays(job.whole_point),
        value=arrays(outputs if job.part is None else whole_outputs(job, job.part)),
        vectors={},
        configuration=job.configuration,
        provenance=origin,
        compression="gzip" if job.compression == "gzip" else "none",
        probes=probes,
        selection=_selection(job.part),
    )


def _shard(job: Job, stream: Stream) -> Shard | None:
    if job.shard is None:
        return None
    return share(*job.shard, stream.axis.lines(stream.shape), stream.axis)


def whole_outputs(job: Job, part: Part) -> dict[str, Tensor]:
    """Return what the function of a part returns of the whole point, by name."""
    point = tuple(part.point.values())
    with explaining_failures(part.whole):
        if job.points is None:
            value = evaluated(part.whole.function, point, job.seed)
        else:
            value = values_of_points(part.whole.function, point, job.seed)
    return named_outputs(part.whole, value)


def _selection(part: Part | None) -> Selection | None:
    if part is None:
        return None
    whole = (tuple(map(_spec_of, axis.whole)) for axis in (part.rows, part.columns))
    return Selection(part.rows.numbers, part.columns.numbers, *whole)


def _specs_of(axis: SelectedAxis) -> _Specs:
    return tuple(_spec_of(part.tensor) for part in axis.parts)


def _spec_of(tensor: AxisTensor) -> TensorSpec:
    return TensorSpec(tensor.name, tensor.shape, str(tensor.dtype).removeprefix("torch."))


def _specs(names: tuple[str, ...], layout: AxisLayout) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, shape, str(dtype).removeprefix("torch."))
        for name, shape, dtype in zip(names, layout.shapes, layout.dtypes, strict=True)
    )


def arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return tensors as a result file keeps them."""
    return {name: to_numpy(tensor) for name, tensor in tensors.items()}
