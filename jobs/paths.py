"""The files of a run: the one class that knows their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RESULT = "result.h5"


def config_directory() -> Path:
    """The folder of the configuration: inside an installed package, beside it in a checkout."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "conf"


@dataclass(frozen=True)
class RunPaths:
    """Where a job keeps what it makes.

    The directory is named by the job and not by the clock, so that the same command finds its
    earlier run. A shard has a directory of its own inside that of the whole matrix.

    Attributes:
        directory: The directory of the run, or of the shard.
        run: The directory of the run.
    """

    directory: Path
    run: Path

    @classmethod
    def of(
        cls,
        runs: str,
        function: str,
        operation: str,
        strategy: str,
        fingerprint: str,
        shard: tuple[int, int] | None = None,
    ) -> RunPaths:
        """The paths of a job, absolute; `shard` is its index and count."""
        run = Path(runs).absolute() / f"{function}-{operation}-{strategy}-{fingerprint[:8]}"
        if shard is None:
            return cls(run, run)
        index, count = shard
        return cls(run / f"shard-{index:0{len(str(count - 1))}}-of-{count}", run)

    @property
    def result(self) -> Path:
        """The finished result."""
        return self.directory / RESULT

    @property
    def whole(self) -> Path:
        """The result with the whole matrix, which for a shard is made by merging."""
        return self.run / RESULT

    @property
    def log(self) -> Path:
        """What the job said, with tracebacks."""
        return self.directory / "job.log"

    @property
    def status(self) -> Path:
        """The state of the job, for watchers."""
        return self.directory / "status.json"
