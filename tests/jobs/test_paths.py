"""Where a job writes its result."""

from collections.abc import Callable
from pathlib import Path

from jobs.execution.execute import execute
from jobs.job import Job
from tests.jobs.support.own_functions import of

Resolve = Callable[..., Job]


def test_a_run_directory_is_named_by_the_job(own: Path, resolved: Resolve, quiet) -> None:
    job = resolved(*of("square"), "runs='it is \"mine\"'")
    path = execute(job, quiet)
    assert path == own / 'it is "mine"' / f"square-jacobian-auto-{job.fingerprint[:8]}/result.h5"
    assert path.is_file()
