"""Split the arguments at many points into the points and constants, shared or of each point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from jobs.configuration.schema import JobConfig
from jobs.errors import ConfigurationError
from jobs.functions.loading import LoadedFunction
from jobs.functions.ragged import ragged_variables
from jobs.functions.variables import Variables, choose_variables
from jobs.operations import OPERATIONS
from jobs.sources.many_files import count_points
from jobs.sources.separate_points import SeparatePoints, as_numpy, separated, stacked
from jobs.sources.source_array import SourceArray


def choose_at_points(
    function: LoadedFunction,
    arguments: Mapping[str, SourceArray],
    config: JobConfig,
    dtype: torch.dtype,
    device: torch.device,
) -> Variables:
    """Make a function of one point, or of the numbers of all points where their sizes differ.

    Points of one size whose constants are the same have one function, which can compute several of
    them together.

    Args:
        function: The function of one point.
        arguments: Its arguments, with a leading dimension over points.
        config: The options.
        dtype: The dtype of the points.
        device: Their device.

    Raises:
        JobError: The options do not fit.
    """
    wrt, loss = config.wrt, config.loss
    is_plain = wrt.pattern == "*" and not any(
        isinstance(array, SeparatePoints) or array.is_integral for array in arguments.values()
    )
    if is_plain:
        return choose_variables(function, arguments, wrt, loss, dtype, device)
    points = separated(arguments, count_points(arguments))
    first = choose_variables(function, points[0], wrt, loss, dtype, device)
    if any(tensor.is_complex() for tensor in first.point.values()):
        raise ConfigurationError(f"points={config.points.by}: many points go with real inputs")
    names = [name for name in arguments if name in first.point]
    shared = [name for name in arguments if name not in first.point]
    if _have_one_shape(points, names) and _are_equal(points, shared):
        whole = {name: stacked(points[0][name].origin, [p[name] for p in points]) for name in names}
        given = {name: whole.get(name, points[0][name]) for name in arguments}
        return choose_variables(function, given, wrt, loss, dtype, device)
    if config.shard or config.rows or config.columns or config.output.compression != "none":
        raise ConfigurationError(
            f"points={config.points.by}: the points have different sizes or constants, and their "
            "result has neither shards, selected rows nor compression; valid are shard=null, "
            "rows=null and output.compression=none"
        )
    return ragged_variables(
        function,
        points,
        wrt,
        loss,
        dtype,
        device,
        is_second_order=OPERATIONS[config.op].is_second_order,
        seed=config.seed,
    )


def _have_one_shape(points: Sequence[Mapping[str, SourceArray]], names: Sequence[str]) -> bool:
    return len({tuple(point[name].shape for name in names) for point in points}) == 1


def _are_equal(points: Sequence[Mapping[str, SourceArray]], names: Sequence[str]) -> bool:
    first = {name: as_numpy(points[0][name]) for name in names}
    return all(
        np.array_equal(first[name], as_numpy(point[name])) for point in points for name in names
    )
