"""Predict what it would save to compile captured programs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import groupby

from autodiff_core._engines.listening import listening
from autodiff_core._programs.program import Program
from autodiff_core._programs.segments import FUSIBLE, WORKING

_SHARE_SAVED = 0.5
"""The share of the time of fusible steps that kernels were measured to save."""

_SECONDS_OF_LOADING = 3.0
_SECONDS_OF_A_KERNEL = 3.0
_SECONDS_OF_A_STEP = 0.05
"""How long torch's compiler was measured to take on a processor."""


@dataclass
class FusionPrediction:
    """What compiling the captured programs of some chunks would save, and cost.

    Attributes:
        seconds: The time that all steps took in these chunks.
        seconds_saved: The part of it that kernels are expected to save.
        kernels: The number of steps of each kernel that would be compiled.
    """

    seconds: float = 0.0
    seconds_saved: float = 0.0
    kernels: list[int] = field(default_factory=list)

    @property
    def compile_seconds(self) -> float:
        """The time that compiling is expected to take."""
        of_kernels = len(self.kernels) * _SECONDS_OF_A_KERNEL
        return _SECONDS_OF_LOADING + of_kernels + sum(self.kernels) * _SECONDS_OF_A_STEP

    def add(self, program: Program, seconds: dict[int, float]) -> None:
        """Add a program of which each step took so long."""
        self.seconds += sum(seconds.values())
        kinds = {number: step.kind for number, step in program.steps.items()}
        for group in program.segments():
            self.kernels.append(len(group[0].numbers))
            numbers = {number for segment in group for number in segment.numbers}
            ordered = [number for number in kinds if number in numbers]
            for is_fusible, run in groupby(ordered, lambda number: kinds[number] in FUSIBLE):
                steps = list(run)
                # One step between two products has nothing to be fused with.
                if is_fusible and sum(kinds[number] in WORKING for number in steps) > 1:
                    self.seconds_saved += _SHARE_SAVED * sum(seconds.get(n, 0.0) for n in steps)


_predictions: list[FusionPrediction] = []


def predicting_fusion() -> AbstractContextManager[FusionPrediction]:
    """Yield a prediction for all captured programs that are applied inside, one chunk each."""
    return listening(_predictions, FusionPrediction())


def predictions() -> list[FusionPrediction]:
    """Return the predictions that are being made."""
    return _predictions
