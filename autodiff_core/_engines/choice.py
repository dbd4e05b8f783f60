"""Choose the engine with which a batched strategy multiplies chunks of vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from autodiff_core._engines.agreement import LinearMap, Precision, ReportFallback
from autodiff_core._engines.captured import Apply, Captured
from autodiff_core._engines.compiled import Compiled

PLAIN = ("plain",)
ALL = ("plain", "captured", "compiled")


@dataclass
class EngineChoice:
    """The engine that a batched strategy is to use.

    Attributes:
        name: The requested engine: ``plain``, ``captured``, ``compiled``, or ``auto`` for the
            captured one where it works.
        strategy: The name of the strategy, for the record of a fallback.
        report: Called when an engine that was requested by name cannot be used.
        precision: The least precise dtype that images are computed in.
        waits: Whether the plain engine computes until `record` is called.
    """

    name: str
    strategy: str
    report: ReportFallback
    precision: Precision
    waits: bool = False
    _captured: list[Captured] = field(default_factory=list)

    def engine(self, linear_map: LinearMap, space: Sequence[Tensor], plain: Apply) -> Apply:
        """Return the engine for a linear map.

        Args:
            linear_map: The map.
            space: Tensors of the shapes, dtypes and devices that a vector has.
            plain: The plain engine for the map.
        """
        if not self.can_record(space):
            return plain
        kind = Compiled if self.name == "compiled" else Captured
        captured = kind(
            linear_map,
            [part.detach() for part in space],
            plain,
            strategy=self.strategy,
            report=None if self.name == "auto" else self.report,
            precision=self.precision,
            waits=lambda: self.waits,
        )
        self._captured.append(captured)
        return captured

    def can_record(self, space: Sequence[Tensor]) -> bool:
        """Return whether the requested engine can record a map of vectors over tensors."""
        # Complex maps are only real-linear: they may conjugate.
        return self.name != "plain" and all(part.is_floating_point() for part in space)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let the plain engine compute in the body: few products are not worth recording."""
        before, self.waits = self.waits, True
        try:
            yield
        finally:
            self.waits = before

    def record(self, records: bool) -> None:
        """Let the requested engine record and compute from the next chunk on, or no longer."""
        self.waits = not records
        if not records:
            for captured in self._captured:
                captured.forget()

    @property
    def used(self) -> str:
        """The name of the engine in use; of several, the slowest."""
        return min((captured.used for captured in self._captured), key=ALL.index, default="plain")

    @property
    def refusal(self) -> str | None:
        """The reason why a faster engine was tried but is not used; else None."""
        refusals = (each for captured in self._captured for each in captured.refusals)
        return next((refusal for refusal in refusals if refusal is not None), None)
