"""Open the stream of blocks that fits a job: at one point, of a sum, or at many points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import autodiff_core
from jobs.functions.at_points import PointsFunction
from jobs.functions.batch_sum import BatchSum
from jobs.functions.blocks import BlocksFunction
from jobs.functions.curvature import Curvature
from jobs.functions.evaluation import evaluated
from jobs.functions.failures import explaining_failures
from jobs.functions.part import Lines
from jobs.functions.ragged import RaggedFunction
from jobs.job import Job
from jobs.machine.accelerator import seed_generators
from jobs.streams.at_points import PointStream
from jobs.streams.blocks import BlocksStream
from jobs.streams.curvature import CurvatureStream
from jobs.streams.curvature_at_points import CurvaturePointStream
from jobs.streams.curvature_blocks import CurvatureBlocksStream
from jobs.streams.of_lines import lines_at_points, lines_of_hessian
from jobs.streams.ragged import RaggedStream
from jobs.streams.single import SingleStream
from jobs.streams.stream import Stream
from jobs.streams.summed import SummedStream
from jobs.streams.vectors import vectors_of


def open_job_stream(job: Job, strategy: str, engine: str = "auto") -> Stream:
    """Open the blocks of a job by a strategy; the same random numbers are drawn each time.

    Args:
        job: The job.
        strategy: The strategy.
        engine: ``auto``, or one of those that `autodiff_core.engines` names.

    Raises:
        JobError: The strategy cannot differentiate the function.
    """
    with explaining_failures(job.function):
        if isinstance(job.function.function, BlocksFunction):
            return _blocks_stream(job, job.function.function, strategy, engine)
        if isinstance(job.function.function, RaggedFunction):
            return RaggedStream(
                job.function.function,
                job.inputs,
                seed=job.seed,
                operation=job.operation,
                strategy=strategy,
            )
        if job.points is not None:
            return _point_stream(job, strategy)
        if job.part is not None and job.part.lines is not None:
            return _lines_stream(job, job.part.lines, strategy, engine)
        return open_function_stream(
            job.function.function,
            job.inputs,
            seed=job.seed,
            operation=job.operation,
            strategy=strategy,
            engine=engine,
            vectors=vectors_of(job),
        )


def _point_stream(job: Job, strategy: str) -> Stream:
    function, inputs = job.function.function, tuple(job.point.values())
    lines = None if job.part is None else job.part.lines
    if isinstance(function, PointsFunction) and function.kind is not None:
        return CurvaturePointStream(function, inputs, seed=job.seed, strategy=strategy, lines=lines)
    if lines is not None:
        return lines_at_points(function, inputs, lines, strategy, job.seed)
    return PointStream(function, inputs, seed=job.seed, operation=job.operation, strategy=strategy)


def _blocks_stream(job: Job, function: BlocksFunction, strategy: str, engine: str) -> Stream:
    if function.is_of_curvature:
        return CurvatureBlocksStream(function, job.seed, strategy)
    options = {"operation": job.operation, "strategy": strategy, "engine": engine}

    def opened(of_block: Callable[..., Any], inputs: Any) -> Stream:
        return open_function_stream(of_block, inputs, seed=job.seed, **options)

    return BlocksStream(function, opened)


def _lines_stream(job: Job, lines: Lines, strategy: str, engine: str) -> Stream:
    function, point = job.function.function, list(job.point.values())
    if isinstance(function, Curvature):
        return CurvatureStream(function, point, job.seed, strategy, lines)
    options = {"operation": "jacobian", "strategy": strategy, "engine": engine}

    def opened(gradient: Callable[..., Any], inputs: Any) -> Stream:
        return open_function_stream(gradient, inputs, seed=job.seed, **options)

    value = evaluated(function, point, job.seed)
    return lines_of_hessian(function, point, lines, strategy, opened, value)


def open_function_stream(
    function: Callable[..., Any], inputs: Any, *, seed: int, **options: Any
) -> Stream:
    """Open the derivative of a function at one point, batch by batch where it is a sum.

    Args:
        function: The function.
        inputs: The point, as `autodiff_core.blocks` takes it.
        seed: The seed of torch's generators.
        **options: Further options of `autodiff_core.blocks`.
    """
    # A job compares its blocks with other numbers, and says which mode is right.
    options["check_modes"] = False
    if isinstance(function, Curvature):
        point = inputs if isinstance(inputs, tuple) else (inputs,)
        return CurvatureStream(function, point, seed, options["strategy"])
    if isinstance(function, BatchSum):
        return SummedStream(function, inputs, seed, **options)
    seed_generators(seed)
    return SingleStream(autodiff_core.blocks(function, inputs, **options))
