"""Split the arguments at many points into the points and constants, shared or of each point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from jobs.configuration.schema import JobConfig
from jobs.errors import ConfigurationError
from jobs.functions.loading import LoadedFunction
from jobs.functions.ragged import ragged_variables
from jobs.functions.real_points import require_real_point
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
    curvature: str | None = None,
) -> Variables:
    """Make a function of one point, or of the numbers of all points where their sizes differ.

    Points of one size have one function, which can compute several of them together.

    Args:
        function: The function of one point.
        arguments: Its arguments and, for a loss, the labels, with a leading dimension over points.
        config: The options.
        dtype: The dtype of the points.
        device: Their device.
        curvature: ``ggn`` or ``fisher`` for the curvature matrix of the loss.

    Raises:
        JobError: The options do not fit.
    """
    wrt, loss = config.wrt, config.loss
    what = (wrt, loss, dtype, device, None, curvature)
    is_plain = wrt.pattern == "*" and not any(
        isinstance(array, SeparatePoints) or array.is_integral for array in arguments.values()
    )
    if is_plain and loss.kind == "none":
        return choose_variables(function, arguments, *what, ())
    points = separated(arguments, count_points(arguments))
    first = choose_variables(function, points[0], *what)
    require_real_point(config, first.point)
    if all(_have_one_shape(points, name) for name in arguments):
        differing = [
            name for name in arguments if name not in first.point and not _is_equal(points, name)
        ]
        given = {
            name: _together(array, points, name)
            if name in first.point or name in differing
            else points[0][name]
            for name, array in arguments.items()
        }
        return choose_variables(function, given, *what, differing)
    if config.shard or config.output.compression != "none":
        raise ConfigurationError(
            f"points={config.points.by}: the points have different sizes, and their result has "
            "neither shards nor compression; valid are shard=null and output.compression=none"
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
        curvature=curvature,
    )


def _together(
    array: SourceArray, points: Sequence[Mapping[str, SourceArray]], name: str
) -> SourceArray:
    if not isinstance(array, SeparatePoints):
        return array
    return stacked(points[0][name].origin, [point[name] for point in points])


def _have_one_shape(points: Sequence[Mapping[str, SourceArray]], name: str) -> bool:
    return len({(point[name].shape, point[name].is_integral) for point in points}) == 1


def _is_equal(points: Sequence[Mapping[str, SourceArray]], name: str) -> bool:
    first = as_numpy(points[0][name])
    return all(np.array_equal(first, as_numpy(point[name])) for point in points[1:])
