"""What a result file says about a job before its first block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autodiff_core import AxisLayout, BlockStream
from jobs.functions.loading import SECOND_ORDER
from jobs.functions.returned_values import named_outputs
from jobs.job import PRODUCTS, Job
from jobs.records.provenance import git_commit, provenance
from jobs.shards import share
from jobs.streams.stream import stored_dtype, to_numpy
from outputs import Axis, Probes, ResultDescription, Shard, TensorSpec


def describe(job: Job, stream: BlockStream, strategy: str, commit: str) -> ResultDescription:
    """Everything that the result file says before its first block.

    Args:
        job: The job.
        stream: Its blocks.
        strategy: How they are computed.
        commit: The commit of the function, as `git_commit` finds it.
    """
    value = stream.value
    outputs = named_outputs(job.function, value)
    names = tuple(outputs)
    is_second_order = job.operation in SECOND_ORDER
    inputs_are_tuple = len(job.point) > 1
    outputs_are_tuple = not isinstance(value, Tensor)
    if job.operation in PRODUCTS:
        rows = (TensorSpec("vectors", (stream.rows.size,), "int64"),)
        column_names = names if job.operation == "jvp" else tuple(job.point)
        rows_are_tuple = False
        columns_are_tuple = outputs_are_tuple if job.operation == "jvp" else inputs_are_tuple
    else:
        rows = _specs(tuple(job.point) if is_second_order else names, stream.rows)
        column_names = tuple(job.point)
        rows_are_tuple = inputs_are_tuple if is_second_order else outputs_are_tuple
        columns_are_tuple = inputs_are_tuple
    return ResultDescription(
        operation=job.operation,
        strategy=strategy,
        function=job.function.reference,
        fingerprint=job.fingerprint,
        axis=Axis(stream.axis),
        rows=rows,
        columns=_specs(column_names, stream.columns),
        dtype=str(stored_dtype(job.storage or stream.dtype)),
        rows_are_tuple=rows_are_tuple,
        columns_are_tuple=columns_are_tuple,
        point=_arrays(job.point),
        value=_arrays(outputs),
        # Those of compressed products follow from the colouring, and are as large as the result.
        vectors=_arrays(job.vectors) if job.compressed is None else {},
        configuration=job.configuration,
        provenance=provenance(job, commit),
        tile=job.tile,
        compression="gzip" if job.compression == "gzip" else "none",
        shard=_shard(job, stream),
        points=job.points,
    )


def describe_sparse(
    job: Job, value: Any, strategy: str, dtype: torch.dtype, probes: Probes | None
) -> ResultDescription:
    """Everything that the file of a sparse matrix says beside its entries.

    Args:
        job: The job, a Jacobian or Hessian.
        value: What the function returns at the point.
        strategy: How the compressed products were computed.
        dtype: Of the entries.
        probes: The products that verify it; None where there are none.
    """
    outputs = named_outputs(job.function, value)
    is_second_order = job.operation in SECOND_ORDER
    leaves = job.point if is_second_order else outputs
    with git_commit(job) as commit:
        origin = provenance(job, commit())
    inputs_are_tuple = len(job.point) > 1
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
        point=_arrays(job.point),
        value=_arrays(outputs),
        vectors={},
        configuration=job.configuration,
        provenance=origin,
        compression="gzip" if job.compression == "gzip" else "none",
        probes=probes,
    )


def _shard(job: Job, stream: BlockStream) -> Shard | None:
    if job.shard is None:
        return None
    lines = stream.shape[0 if stream.axis == "rows" else 1]
    return share(*job.shard, lines, stream.axis)


def _specs(names: tuple[str, ...], layout: AxisLayout) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, shape, str(dtype).removeprefix("torch."))
        for name, shape, dtype in zip(names, layout.shapes, layout.dtypes, strict=True)
    )


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: to_numpy(tensor) for name, tensor in tensors.items()}
