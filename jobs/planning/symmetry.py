"""Hessians whose columns, as they are computed, are written as rows."""

from __future__ import annotations

from dataclasses import replace

from autodiff_core import BlockStream
from jobs.job import Job
from jobs.planning.decision import Decision
from jobs.verification.check import Check
from jobs.verification.probe_check import ProbeCheck


def rows_by_symmetry(
    job: Job, decision: Decision, check: Check, begun: str | None
) -> tuple[Decision, Check]:
    """Let forward mode give rows of a Hessian that is seen to be symmetric.

    A row is written as it is computed, a column has to be turned into tiles, which takes longer
    than to compute it. That the Hessian is symmetric is not assumed: the two products of the check,
    H v and v H, come by different routes and have to agree. Shards stay with their columns, for
    each of them decides by itself.

    Args:
        job: The job.
        decision: How it is computed.
        check: What its blocks are held against.
        begun: The axis of what an earlier run began, which is kept; None if there is nothing.

    Returns:
        The decision and the check, for blocks of rows where that is so.
    """
    stream = decision.stream
    is_candidate = (
        job.operation == "hessian"
        and job.shard is None
        and isinstance(stream, BlockStream)
        and stream.axis == "columns"
    )
    is_probed = isinstance(check, ProbeCheck)
    is_symmetric = begun is None and is_probed and check.shows_symmetry
    if not is_candidate or not (is_symmetric or begun == "rows"):
        return decision, check
    reason = f"{decision.strategy_reason}; written as rows, for the Hessian is symmetric"
    by_rows = replace(decision, stream=stream.rows_by_symmetry(), strategy_reason=reason)
    return by_rows, check.of_rows() if is_probed else check
