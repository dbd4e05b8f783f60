"""What the result file, the status file and the terminal say of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jobs.execution.block_sources import BlockSource
from jobs.execution.chunk_size import ChunkSize
from jobs.execution.preparation import Prepared
from jobs.functions.conversions import conversion_figures
from jobs.machine.accelerator import device_name
from jobs.machine.measurement import peak_memory
from jobs.strategies import LOOPS
from jobs.streams.nonfinite import NonFinite
from jobs.units import duration, size
from jobs.verification.comparison import comparison_summary
from jobs.verification.precision import precision_figures
from jobs.verification.verdict import difference_figures, verdict
from outputs import Verdict


@dataclass
class Record:
    """What happens while a job runs; kept in the result.

    Attributes:
        nonfinite: The count of entries that are not finite.
        say: Shows a line.
        fallbacks: Slower ways that were taken, as sentences.
        lines: The number of rows or columns that this run has computed.
        seconds: The time that it has taken.
    """

    nonfinite: NonFinite
    say: Callable[[str], None]
    fallbacks: list[str] = field(default_factory=list)
    lines: int = 0
    seconds: float = 0.0

    def note(self, text: str) -> None:
        """Keep and show, once, what the user should know, such as a slower way that was taken."""
        # A sum over batches is linearized anew for each block, which takes that way again.
        if text not in self.fallbacks:
            self.fallbacks.append(text)
            self.say(f"note: {text}{_advice(text)}")


def _advice(fallback: str) -> str:
    """Return which option does without a fallback; empty for those that none avoids."""
    strategy, _, rest = fallback.partition(": ")
    if strategy not in LOOPS or not rest.startswith("one vector at a time"):
        return ""
    return f"; strategy={LOOPS[strategy]} does so from the start"


def judged(prepared: Prepared) -> tuple[Verdict, dict[str, Any]]:
    """Return what is known of the numbers after the last block of a job.

    Args:
        prepared: The job.

    Returns:
        The verdict, and the figures of the verification with it.
    """
    facts = prepared.facts
    lines = 0 if 0 in facts.shape else prepared.description.lines
    figures = prepared.check.figures()
    found = verdict(prepared.job, figures, prepared.differences, lines, facts.axis)
    return found, found.record() | figures


def execution_record(
    prepared: Prepared,
    source: BlockSource,
    chunks: ChunkSize,
    record: Record,
    verification: dict[str, Any],
) -> dict[str, Any]:
    """Return what the result file keeps of a run, with the figures of its verification."""
    job, plan = prepared.job, prepared.plan
    return {
        "chunk_size": chunks.size,
        "chunk_sizes": chunks.used,
        "device": device_name(job.device),
        **source.figures(),
        **({"dense_because": job.dense_reason} if job.dense_reason else {}),
        "lines_computed": record.lines,
        "lines_resumed": plan.lines - record.lines,
        "seconds": record.seconds,
        "peak_memory_bytes": peak_memory(job.device),
        "fallbacks": record.fallbacks,
        **({"excluded": dict(job.excluded)} if job.excluded else {}),
        "conversions": conversion_figures(job.conversions),
        "notes": list(job.notes),
        "nonfinite": record.nonfinite.figures(),
        "verification": {**verification, **precision_figures(job)},
        "differences": difference_figures(prepared.differences),
        "plan": {
            "strategy_reason": plan.strategy_reason,
            "chunk_reason": plan.chunk_reason,
            "memory_budget_bytes": plan.memory_budget,
            "predicted_peak_bytes": plan.peak_bytes,
            "predicted_seconds": plan.seconds,
            "probing_seconds": prepared.decision.probing_seconds,
        },
    }


def running_status(prepared: Prepared) -> dict[str, Any]:
    """Return what the status file says of a job when it begins to compute."""
    job, plan = prepared.job, prepared.plan
    return {
        "operation": job.operation,
        "strategy": plan.strategy,
        "function": job.function.reference,
        "fingerprint": job.fingerprint,
        "device": plan.device,
        "axis": plan.axis,
        "shape": [plan.rows, plan.columns],
        "dtype": plan.dtype,
        "lines": plan.lines,
        "lines_done": plan.lines - plan.missing,
        "chunk_size": plan.chunk_size,
        "message": "",
    }


def outcome_summary(prepared: Prepared, record: Record) -> dict[str, str]:
    """Return the lines, by their titles, that the terminal shows when a job has finished."""
    job, plan = prepared.job, prepared.plan
    rate = record.lines * plan.across * plan.itemsize / max(record.seconds, 1e-9)
    summary = {
        "matrix": f"/{job.operation}, {plan.extent}",
        "time": f"{duration(record.seconds)}, {size(round(rate))}/s",
        "memory": f"{size(peak_memory(job.device))} at most, {size(plan.peak_bytes)} predicted",
    }
    if job.stage is not None:
        summary["precision"] = f"the least precise stage is {job.stage}"
    if prepared.differences and all(each.state == "agree" for each in prepared.differences):
        summary["differences"] = comparison_summary(prepared.differences)
    if record.nonfinite.count:
        row, column = record.nonfinite.first[0]
        summary["not finite"] = (
            f"{record.nonfinite.count} entries, first at row {row}, column {column}"
        )
    return summary
