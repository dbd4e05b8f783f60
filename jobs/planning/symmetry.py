"""Write the columns of a symmetric Hessian as rows."""

from __future__ import annotations

from dataclasses import replace

from autodiff_core import Axis
from jobs.job import Job
from jobs.planning.decision import Decision
from jobs.verification.check import Check
from jobs.verification.probe_check import ProbeCheck


def rows_by_symmetry(
    job: Job, decision: Decision, check: Check, begun: str | None
) -> tuple[Decision, Check]:
    """Let forward mode give rows of a Hessian that is found to be symmetric.

    A row is written as it is computed; a column has to be turned into tiles, which takes longer
    than computing it. That the Hessian is symmetric is not assumed: the two products of the check,
    H v and v H, are computed by different routes and have to agree. Shards keep their columns,
    because each of them decides by itself; a diagonal is the same by both.

    Args:
        job: The job.
        decision: How it is computed.
        check: The check of its blocks.
        begun: The axis of what an earlier run began, which is kept; None if there is nothing.

    Returns:
        The decision and the check, both for blocks of rows if the Hessian is symmetric.
    """
    is_by_columns = job.operation == "hessian" and decision.stream.axis is Axis.COLUMNS
    is_probed = isinstance(check, ProbeCheck)
    is_symmetric = begun is None and is_probed and check.shows_symmetry
    is_whole = job.shard is None and job.structure == "full"
    if not (is_by_columns and is_whole and (is_symmetric or begun == Axis.ROWS)):
        return decision, check
    stream = decision.stream.rows_by_symmetry()
    if stream is None:
        return decision, check
    reason = f"{decision.strategy_reason}; written as rows, because the Hessian is symmetric"
    by_rows = replace(decision, stream=stream, strategy_reason=reason)
    return by_rows, check.of_rows() if is_probed else check
