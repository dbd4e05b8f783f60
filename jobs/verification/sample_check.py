"""Check a random sample of rows and columns."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autodiff_core import Axis, Block
from jobs.functions.tracebacks import one_line
from jobs.job import Job
from jobs.operations import OPERATIONS
from jobs.records.announcements import route_of_check, trying_route
from jobs.streams.opening import open_function_stream
from jobs.streams.stream import Stream
from jobs.verification.numerics import largest_difference
from jobs.verification.routes import probe_seed
from outputs import Probes

_SAMPLES = 3


class SampleCheck:
    """Compares a few random rows and columns with those of another strategy."""

    notes: tuple[str, ...] = ()

    def __init__(self, job: Job, stream: Stream, tolerance: float) -> None:
        """Compute the rows by `reverse-loop` and the columns by `forward-loop`."""
        self.tolerance = tolerance
        self._largest = 0.0
        self._compared = 0
        self._reason = ""
        self._rows: dict[int, Tensor] = {}
        self._columns: dict[int, Tensor] = {}
        if OPERATIONS[job.operation].is_product:
            self._reason = "verify=sample is for whole matrices"
            return
        generator = torch.Generator().manual_seed(probe_seed(job))
        for expected, length, axis, strategy in (
            (self._rows, stream.rows.size, "rows", "reverse-loop"),
            (self._columns, stream.columns.size, "columns", "forward-loop"),
        ):
            if (left_out := job.excluded.get(route_of_check(strategy))) is not None:
                self._reason = f"no {axis} by {strategy}: {left_out}"
                continue
            trying_route(job, strategy)
            drawn = torch.randperm(length, generator=generator)[:_SAMPLES].tolist()
            try:
                other = open_function_stream(
                    job.function.function,
                    job.inputs,
                    seed=job.seed,
                    operation=job.operation,
                    strategy=strategy,
                )
                for index in drawn:
                    line = other.block(index, index + 1).values.reshape(-1)
                    # With a line of NaN everything would agree.
                    if bool(torch.isfinite(line).any()):
                        expected[index] = line
                    else:
                        self._reason = f"{axis} by {strategy} are not finite, such as {index}"
            except (RuntimeError, NotImplementedError) as error:
                self._reason = f"no {axis} by {strategy}: {one_line(error)}"

    def error(self, block: Block) -> float:
        """Return the largest error of an entry relative to the largest of its row or column."""
        lines, along, across = block.values, self._rows, self._columns
        if block.axis is Axis.COLUMNS:
            lines, along, across = lines.T, across, along
        pairs = [
            (lines[index - block.start], expected)
            for index, expected in along.items()
            if block.start <= index < block.stop
        ]
        pairs += [
            (lines[:, index], expected[block.start : block.stop])
            for index, expected in across.items()
        ]
        return max((largest_difference(*pair) for pair in pairs), default=0.0)

    def record(self, start: int, stop: int, error: float) -> None:
        """Count a block that has passed, and keep its error."""
        self._compared += stop - start
        self._largest = max(self._largest, error)

    def on(self, device: torch.device) -> SampleCheck:
        """Return the check for blocks on another device, with nothing counted."""
        moved = copy.copy(self)
        moved._rows, moved._columns = (
            {index: line.to(device) for index, line in lines.items()}
            for lines in (self._rows, self._columns)
        )
        return moved

    def complete(self, path: Path) -> None:
        """Check nothing more."""

    def figures(self) -> dict[str, Any]:
        """Return what the result file keeps."""
        return {
            "kind": "sample",
            "rows": sorted(self._rows),
            "columns": sorted(self._columns),
            "lines_compared": self._compared,
            "largest_relative_error": self._largest,
            "tolerance": self.tolerance,
            "reason": self._reason,
        }

    def probes(self) -> Probes | None:
        """Return None: a few lines verify nothing of the others."""
        return None
