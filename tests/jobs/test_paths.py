"""Where a job writes its result."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import JobError
from jobs.execution.execute import execute
from jobs.job import Job
from outputs import open_result
from tests.jobs.support.own_functions import of

Resolve = Callable[..., Job]


def test_a_run_directory_is_named_by_the_job(own: Path, resolved: Resolve, quiet) -> None:
    job = resolved(*of("square"), "runs='it is \"mine\"'")
    path = execute(job, quiet)
    assert path == own / 'it is "mine"' / f"square-jacobian-auto-{job.fingerprint[:8]}/result.h5"
    assert path.is_file()


@pytest.mark.parametrize("left", ["result.h5", "status.json", "shard"])
def test_jobs_whose_fingerprints_begin_alike_have_their_own_directories(
    left: str, own: Path, resolved: Resolve, quiet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(digits: str, *options: str) -> Job:
        monkeypatch.setattr("jobs.job.fingerprint", lambda *a: digits.ljust(64, "0"))
        return resolved(*of("square"), "strategy=reverse-loop", *options)

    part = ("shard=0/2",) if left == "shard" else ()
    first = resolve("12345678a", *part)
    path = execute(first, quiet)
    if left == "status.json":
        path.unlink()
    if left == "result.h5":
        (path.parent / "status.json").unlink()
    second = resolve("12345678b", *part)
    assert second.paths.run.name.endswith("-12345678b0000000")
    execute(second, quiet, overwrite=True)
    third = resolve("12345678b0000000c", *part)
    assert third.paths.run.name.endswith(third.fingerprint)
    # Each finds its own again, also after the first one has been removed.
    for job, digits in ((first, "12345678a"), (second, "12345678b")):
        assert resolve(digits, *part).paths == job.paths
    first.paths.run.rename(own / "moved")
    assert resolve("12345678b", *part).paths == second.paths


def test_overwriting_compares_the_whole_fingerprint(own: Path, resolved: Resolve, quiet) -> None:
    job, other = resolved(*of("square")), resolved(*of("square"), "seed=1")
    content = execute(other, quiet).read_bytes()
    job.paths.directory.mkdir(parents=True)
    job.paths.result.write_bytes(content)
    with pytest.raises(JobError, match="is the result of another job"):
        execute(job, quiet, overwrite=True)
    assert job.paths.result.read_bytes() == content
    job.paths.result.write_bytes(content[:1000])  # nothing that could be of another job
    with open_result(execute(job, quiet, overwrite=True)) as result:
        assert result.fingerprint == job.fingerprint
