"""The names of the files and directories of a run, and where the configuration is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RESULT = "result.h5"
STATUS = "status.json"
LOG = "job.log"
COLOURING = "colouring.npz"
PRODUCTS = "products-by-"


def config_directory() -> Path:
    """Return the folder of the configuration: inside an installed package, or in the checkout."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "conf"


def failure_directory(runs: str) -> Path:
    """Return the directory of the points at which functions failed, absolute.

    Args:
        runs: The option `runs`.
    """
    return Path(runs).absolute() / "failures"


@dataclass(frozen=True)
class RunPaths:
    """The files of a job.

    The directory is named after the job and not after the time, so that the same command finds its
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
        digits: str,
        shard: tuple[int, int] | None = None,
    ) -> RunPaths:
        """Return the paths of a job, absolute.

        Args:
            runs: The option `runs`.
            function: The name of the function.
            operation: The operation.
            strategy: The strategy.
            digits: The first digits of the fingerprint.
            shard: Index and count of the part that is computed; None for the whole matrix.
        """
        run = Path(runs).absolute() / f"{function}-{operation}-{strategy}-{digits}"
        return cls.in_run(run, shard)

    @classmethod
    def in_run(cls, run: Path, shard: tuple[int, int] | None) -> RunPaths:
        """Return the paths of a job, or of its shard, in the directory of its run."""
        if shard is None:
            return cls(run, run)
        index, count = shard
        return cls(run / f"shard-{index:0{len(str(count - 1))}}-of-{count}", run)

    def products(self, kind: str) -> RunPaths:
        """Return the paths of the job that computes compressed products of a sparse matrix.

        Args:
            kind: What its vectors combine: ``columns`` or ``rows``.
        """
        run = self.run / f"{PRODUCTS}{kind}"
        return RunPaths(run / self.directory.relative_to(self.run), run)

    @property
    def result(self) -> Path:
        """The finished result."""
        return self.directory / RESULT

    @property
    def replacement(self) -> Path:
        """The result that replaces a finished one, until it is finished itself."""
        return self.directory / "replacement.h5"

    @property
    def whole(self) -> Path:
        """The result with the whole matrix, which merging makes from the results of shards."""
        return self.run / RESULT

    @property
    def colouring(self) -> Path:
        """The colouring of a sparse matrix, while the job runs."""
        return self.run / COLOURING

    @property
    def log(self) -> Path:
        """What the job logged, with tracebacks."""
        return self.directory / LOG

    @property
    def status(self) -> Path:
        """The state of the job, for `jobs.status`."""
        return self.directory / STATUS
