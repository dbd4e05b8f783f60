"""The thresholds of planning, each with the measurement or the reason behind it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """When the search measures, stops, waits and compiles.

    Attributes:
        share: Probing takes at most this share of the predicted run.
        share_of_short_runs: The share of a short run, beyond `seconds_anyway`.
        seconds_to_open_anyway: Seconds that opening another strategy may always take.
        seconds_anyway: Seconds that measuring chunks may always take.
        seconds_of_planning: Seconds that measured chunks may take whose blocks the run keeps: with
            what opens strategies, a user waits for half a second.
        seconds_at_most: Upper limit in seconds on the trials of a short run.
        lasting_seconds: Chunks shorter than this are measured repeatedly and the fastest counts:
            the first one takes its memory from the system.
        repetitions: How often they are measured.
        loading_seconds: A chunk that took less than this while torch loaded parts of itself is
            measured again; loading torch's compiler was measured to take two seconds.
        lines_to_open: Opening a strategy and measuring a line of it takes about as long as so many
            lines of another, or as its first one took.
        lines_to_verify: Verifying the first batch of the plain engine takes about as long as so
            many lines: a batch of random vectors, and two lines to compare with.
        seconds_of_a_node: Recording takes so many seconds for each operator in the graph of the
            function, beside `lines_to_record`.
        lines_to_record: What recording takes beside, in lines: it evaluates the derivative, and
            verifies the program. Both together met 16 functions to within a factor of two by
            reverse mode.
        lines_of_python_to_record: It takes no longer than so many lines, however little each of
            their operators computes (4 to 33 were measured).
        share_to_record: Recording takes at most this share of the run of the plain engine. It saves
            a half in the median of many functions, and sometimes nothing.
        seconds_to_record_anyway: It may take these seconds in shorter runs of many lines too:
            a tenth of a second is not noticed beside the start of a job.
        brief_seconds: Chunks shorter than this are measured twice in any case.
        share_to_record_another: It takes at most this share of the run where another strategy is
            recorded, which seldom takes much longer.
        plain_behind: The plain engine is not tried beside a recorded program if a line took it so
            many times longer in the largest batch that was measured.
        evaluations_to_open: It takes at least so many evaluations: forward mode compares itself
            with reverse mode.
        share_to_keep: A stream that holds at most this share of the memory budget stays open while
            others are measured.
        hopeless: With so many times more rows than columns, or the other way round, the strategy
            with more passes is not tried.
        far_behind: A strategy that is this many times slower than another at the same chunk size
            is given up.
        worse: A chunk is worse than a smaller one if a line takes this many times longer: its
            data have left the caches.
        first_of_a_size: The first chunk of a size, which takes its memory from the system, takes at
            most so many times as long as the next (2.0 was measured).
        worse_in_a_row: So many worse chunks in a row end the growth.
        small_batch: Batches this small may be slower than the loop over lines.
        share_of_peak: The share by which the peak of memory may grow with chunks that only the run
            tries.
        chunks_of_a_worker: Each worker gets at least so many chunks, so that all end at about the
            same time.
        compiles_from_seconds: Predicted seconds of a run above which its programs are timed, to
            predict what compiling them saves.
        compiles_on_devices_from_seconds: Predicted seconds of a run, for each tensor, above which
            compiling is tried where it cannot be predicted.
        compiled_share: Compiled chunks pay if they take at most this share of the time.
    """

    share: float = 0.05
    share_of_short_runs: float = 0.25
    seconds_to_open_anyway: float = 0.01
    seconds_anyway: float = 0.03
    seconds_of_planning: float = 0.4
    seconds_at_most: float = 2.0
    lasting_seconds: float = 0.2
    repetitions: int = 2
    loading_seconds: float = 10.0
    lines_to_open: int = 8
    lines_to_verify: int = 4
    seconds_of_a_node: float = 0.2e-3
    lines_to_record: int = 5
    lines_of_python_to_record: int = 24
    share_to_record: float = 0.5
    seconds_to_record_anyway: float = 0.1
    brief_seconds: float = 0.01
    share_to_record_another: float = 0.1
    plain_behind: float = 2.0
    evaluations_to_open: int = 3
    share_to_keep: float = 0.01
    hopeless: float = 30
    far_behind: float = 3.0
    worse: float = 1.3
    first_of_a_size: float = 2.5
    worse_in_a_row: int = 2
    small_batch: int = 4
    share_of_peak: float = 0.05
    chunks_of_a_worker: int = 4
    compiles_from_seconds: float = 10.0
    compiles_on_devices_from_seconds: float = 120.0
    compiled_share: float = 0.85


THRESHOLDS = Thresholds()
