"""The strategies under consideration, and what the search knows of them so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from jobs.job import Job
from jobs.machine.memory import Budget, memory_in_use
from jobs.planning.cost import Costs
from jobs.planning.thresholds import Thresholds
from jobs.streams.stream import Stream, bounds_of
from jobs.units import duration

UNDECIDED = "undecided"


@dataclass
class Growth:
    """How far a strategy has been measured in chunks of growing size.

    Attributes:
        costs: What was measured.
        sizes: The chunk sizes that are still to be measured.
        worse: How many of the last chunks were slower per line than a smaller one.
        first_of_a_size: How many times as long as the next the first chunk of a size has taken, at
            most; None before a batch was measured twice.
    """

    costs: Costs
    sizes: list[int]
    worse: int = 0
    first_of_a_size: float | None = None


@dataclass
class Candidate:
    """A strategy that the search considers.

    Attributes:
        strategy: Its name.
        engine: The engine that it is to be opened with: ``plain``, ``auto`` once its program may be
            recorded, or ``compiled``.
        stream: Its stream of blocks; None while it is closed.
        growth: The measurement with that engine; None before the first.
        costs: What was measured, of the last engine that completed a chunk; None before the first.
        note: Why it was not measured or does not fit, in words; empty if there is no reason.
        failure: The message of its failure; empty if it did not fail.
        culprit: What in the function is the reason, as a clause; empty if unknown.
        fallbacks: Slower ways that the stream has already taken, as sentences.
        ran_out: Whether a chunk did not fit into the memory.
        line: What a line is: ``row`` or ``column``; empty before the stream was first opened.
        opening_seconds: How long it took to open: an evaluation, and what forward mode compares.
        recording: Why its program is not recorded, in words; ``UNDECIDED`` until a line of the
            plain engine was measured; empty if it is recorded, or no engine could.
        plain: What was measured of the plain engine before recording; None if it was not.
    """

    strategy: str
    engine: str = "plain"
    stream: Stream | None = None
    growth: Growth | None = None
    costs: Costs | None = None
    note: str = ""
    failure: str = ""
    culprit: str = ""
    fallbacks: list[str] = field(default_factory=list)
    ran_out: bool = False
    line: str = ""
    opening_seconds: float = 0.0
    recording: str = ""
    plain: Costs | None = None

    @property
    def run_seconds(self) -> float:
        """The shortest time of the whole run in chunks of a measured size."""
        costs = self.measured
        return min(costs.seconds(trial.chunk_size) for trial in costs.trials)

    def let_record(self) -> None:
        """Let the engine record the program of the open stream, to be measured anew."""
        recorder = self.opened.recorder
        assert recorder is not None
        recorder.record(True)
        self.engine, self.recording, self.plain, self.costs = "auto", "", self.costs, None

    @property
    def measured(self) -> Costs:
        """The costs of a candidate of which a chunk was measured."""
        assert self.costs is not None
        return self.costs

    @property
    def gains_by_recording(self) -> bool:
        """Whether a line of the recorded program takes less time than a single one before."""
        if self.plain is None:
            return False
        return self.run_seconds < self.plain.seconds(self.plain.smallest)

    @property
    def opened(self) -> Stream:
        """The stream of a candidate that is open."""
        assert self.stream is not None
        return self.stream

    @property
    def seconds_of_a_line(self) -> str:
        """The time that a row or column takes, in words."""
        return f"{duration(self.run_seconds / max(1, self.measured.lines))} a {self.line}"

    def fits(self, budget: int) -> bool:
        """Return whether a measured chunk size stays within a budget of bytes."""
        return self.costs is not None and self.costs.best_chunk(budget) is not None


@dataclass
class Search:
    """The state of a search: what is asked, what it may take, and the candidates so far.

    Attributes:
        job: The job.
        budget: The memory that it may use.
        limit: The largest chunk size that may be chosen; None for any.
        tell: Called with strategy and chunk size before they are tried.
        thresholds: When to measure, stop, wait and compile.
        occupied: Bytes of memory in use before the search.
        candidates: The candidates by strategy, in the order in which they were considered.
        spent: Seconds that chunks have taken so far, beside those that their blocks save the run.
        computed: Seconds in which all measured chunks computed.
        waited: Seconds that they waited for a processor meanwhile.
        shape: (rows, columns) of the matrix at one point; None before a stream was opened.
    """

    job: Job
    budget: Budget
    limit: int | None
    tell: Callable[[str, int], None]
    thresholds: Thresholds
    occupied: int
    candidates: dict[str, Candidate] = field(default_factory=dict)
    spent: float = 0.0
    computed: float = 0.0
    waited: float = 0.0
    shape: tuple[int, int] | None = None

    def candidate(self, strategy: str) -> Candidate:
        """Return the candidate of a strategy, a new one where there is none yet."""
        return self.candidates.setdefault(strategy, Candidate(strategy))

    @property
    def measured(self) -> list[Candidate]:
        """The candidates of which at least one chunk was measured."""
        return [each for each in self.candidates.values() if each.costs is not None]

    @property
    def run_seconds(self) -> float:
        """The shortest time of the whole run that was measured so far; infinite before."""
        return min((each.run_seconds for each in self.measured), default=float("inf"))

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that the open streams hold, about."""
        return memory_in_use(self.job.device) - self.occupied

    def affords(
        self, seconds: float, remaining: int, *, is_kept: bool = False, is_opening: bool = False
    ) -> bool:
        """Return whether there is time for another probe: a share of the run as now predicted.

        Args:
            seconds: How long the probe takes.
            remaining: How many strategies share the time that is left.
            is_kept: Whether the run keeps its block, so that only the user waits for it.
            is_opening: Whether it opens another strategy, which may load parts of torch.
        """
        limits = self.thresholds
        run = self.run_seconds
        if is_kept and self.computed + seconds <= limits.seconds_of_planning:
            return True
        # Where nothing is left to choose, probes only serve the prediction.
        share = limits.share_of_short_runs if self.has_choice else limits.share
        anyway = limits.seconds_to_open_anyway if is_opening else limits.seconds_anyway
        short = min(limits.seconds_at_most, anyway + share * run)
        return self.spent + seconds <= max(limits.share * run, short) / remaining

    def affords_recording(self, candidate: Candidate) -> bool:
        """Return whether recording takes a small share of the run as the plain engine computes it.

        Args:
            candidate: The candidate; its stream is open.
        """
        limits, seconds = self.thresholds, self.seconds_to_record(candidate)
        share = limits.share_to_record_another if self.has_recorded else limits.share_to_record
        if seconds <= share * self.run_seconds:
            return True
        # A few lines are computed before: it evaluates them, and verifies as many.
        is_for_many = candidate.measured.lines > 2 * limits.lines_to_record
        return is_for_many and seconds <= limits.seconds_to_record_anyway

    def seconds_to_record(self, candidate: Candidate) -> float:
        """Return how long recording takes, about.

        Recording runs the derivative once in Python, with some work for each operator. Operators
        are counted by the graph of autograd: nothing is evaluated to find out.

        Args:
            candidate: The candidate; its stream is open.
        """
        if self.job.compile == "always":
            return 0.0
        limits, costs, stream = self.thresholds, candidate.measured, candidate.opened
        line = costs.line_seconds(costs.smallest)
        operators = limits.seconds_of_a_node * stream.nodes + limits.lines_to_record * line
        seconds = min(operators, limits.lines_of_python_to_record * line)
        # Each of many matrices has a program of its own.
        return seconds * max(1, len(bounds_of(stream) or ()) - 1)

    @property
    def has_recorded(self) -> bool:
        """Whether chunks of a recorded program were measured."""
        return any(each.plain is not None for each in self.measured)

    @property
    def has_choice(self) -> bool:
        """Whether the user left strategy or chunk size open."""
        return self.job.strategy == "auto" or self.job.chunk_size is None

    def fastest(self) -> Candidate:
        """Return the measured candidate that is fastest within the memory budget."""
        budget = self.budget.bytes
        return min(self.measured, key=lambda each: each.measured.best_seconds(budget))
