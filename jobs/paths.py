"""The files of a run: the one class that knows their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


def config_directory() -> Path:
    """The folder of the configuration: inside an installed package, beside it in a checkout."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "conf"


@dataclass(frozen=True)
class RunPaths:
    """Where a job keeps what it makes.

    The directory is named by the job and not by the clock, so that the same command finds its
    earlier run.

    Attributes:
        directory: The directory of the run.
    """

    directory: Path

    @classmethod
    def of(
        cls, runs: str, function: str, operation: str, strategy: str, fingerprint: str
    ) -> RunPaths:
        """The paths of a job, absolute."""
        name = f"{function}-{operation}-{strategy}-{fingerprint[:8]}"
        return cls(Path(runs).absolute() / name)

    @property
    def result(self) -> Path:
        """The finished result."""
        return self.directory / "result.h5"

    @property
    def log(self) -> Path:
        """What the job said, with tracebacks."""
        return self.directory / "job.log"
