"""The engines behind the batched strategies: how a chunk of vectors is multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from autodiff_core._engines.agreement import LinearMap, ReportFallback
from autodiff_core._engines.captured import Apply, Captured
from autodiff_core._engines.compiled import Compiled

PLAIN = ("plain",)
ALL = ("plain", "captured", "compiled")


@dataclass
class EngineChoice:
    """Which engine a batched strategy is to use.

    Attributes:
        name: ``plain``, ``captured``, ``compiled``, or ``auto`` for the captured one where it
            works.
        strategy: The name of the strategy, for the record of a fallback.
        report: Is told when a named engine cannot be used.
    """

    name: str
    strategy: str
    report: ReportFallback
    _captured: list[Captured] = field(default_factory=list)

    def engine(self, linear_map: LinearMap, space: Sequence[Tensor], plain: Apply) -> Apply:
        """The engine for a linear map.

        Args:
            linear_map: The map.
            space: The tensors that a vector consists of.
            plain: The plain engine for it.
        """
        # Complex maps are linear in the real numbers alone, conjugation included.
        if self.name == "plain" or any(not part.is_floating_point() for part in space):
            return plain
        kind = Compiled if self.name == "compiled" else Captured
        captured = kind(
            linear_map,
            [part.detach() for part in space],
            plain,
            strategy=self.strategy,
            report=None if self.name == "auto" else self.report,
        )
        self._captured.append(captured)
        return captured

    @property
    def used(self) -> str:
        """The name of the engine that computes."""
        return min((captured.used for captured in self._captured), key=ALL.index, default="plain")

    @property
    def refusal(self) -> str | None:
        """Why a faster engine is not used though it was tried; else None."""
        refusals = (each for captured in self._captured for each in captured.refusals)
        return next((refusal for refusal in refusals if refusal is not None), None)
