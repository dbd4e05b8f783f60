"""Run a job, dense or sparse, unless its result is finished."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from autodiff_core import silent_fallbacks
from jobs.configuration.schema import LiveFunction
from jobs.errors import JobError
from jobs.execution.dense import execute_dense, finished_result
from jobs.execution.failure_status import clear_failures
from jobs.execution.run_lock import computing_in, tidy
from jobs.execution.sparse import execute_sparse
from jobs.functions.kernels import differentiable_kernels
from jobs.job import Job
from jobs.records.storage import Storage, option_in_words
from jobs.reporting.terminal import Display
from jobs.run_directory import fingerprint_of
from jobs.verification.verdict import shortfall
from outputs import (
    Result,
    SparseResult,
    is_sparse_result,
    open_result,
    open_sparse_result,
    part_path,
)

_LISTED = 5
_DATA = "data that the function reads by itself"


def execute(
    job: Job,
    display: Display,
    *,
    overwrite: bool = False,
    plan_only: bool = False,
    log: Callable[[Path], AbstractContextManager[None]] | None = None,
) -> Path:
    """Compute what is missing of a result, verify it and give it its name.

    Args:
        job: The job.
        display: Shows plan, progress and outcome.
        overwrite: Whether a finished result is replaced.
        plan_only: Whether to stop after the plan.
        log: Opens the log file of the job while this process computes it, and not while another
            one does; None writes no log.

    Returns:
        The path of the result.

    Raises:
        JobError: The job cannot start or continue; computed blocks stay on the disk. Or its result
            is finished and contradicted, or not verified where it must be; the result stays.
    """
    with clear_failures():
        _require_files(job)
        if overwrite:
            _require_own(job, job.paths.result)
        if not overwrite and (path := show_finished(job, display)):
            return path
        if plan_only:
            return _computed(job, display, overwrite=overwrite, plan_only=True)
        with computing_in(job.paths.directory):
            # Another process may have finished it while this one loaded the job.
            if not overwrite and (path := show_finished(job, display)):
                return path
            with log(job.paths.log) if log else nullcontext():
                path = _computed(job, display, overwrite=overwrite)
        _judge(job, path)
        return path


def _computed(job: Job, display: Display, *, overwrite: bool, plan_only: bool = False) -> Path:
    for note in job.notes:
        display.say(f"note: {note}")
    run = execute_dense if job.sparsity == "none" else execute_sparse
    with differentiable_kernels(), silent_fallbacks():
        return run(job, display, overwrite=overwrite, plan_only=plan_only)


def show_finished(job: Job, display: Display) -> Path | None:
    """Show the finished result of a job and return its path; None if there is none.

    Raises:
        JobError: It is of another job, or not stored or not verified as the options ask for.
    """
    path = finished_result(job)
    if path is None:
        return None
    _require_own(job, path)
    tidy(path.parent)
    with _opened(job, path) as result:
        _require_storage(job, Storage.of_result(result), path)
        _say_other_check(job, result, display)
        shape = " x ".join(map(str, result.shape))
        display.already_finished(result.verdict, shape, str(path), identity_of(job))
    _judge(job, path)
    return path


def _say_other_check(job: Job, result: Result | SparseResult, display: Display) -> None:
    """Say where the options ask for another check than the one that the result has had."""
    texts = job.configuration, result.configuration
    asked, had = (yaml.safe_load(text)["verify"] for text in texts)
    others = [name for name in asked if asked[name] != had.get(name) and name != "required"]
    if others:
        now, before = (" ".join(_option(n, each.get(n)) for n in others) for each in (asked, had))
        display.say(
            f"note: {now}: the result was verified with {before}, and the verdict is of that "
            "check; overwrite=true computes and verifies it again"
        )


def _option(name: str, value: Any) -> str:
    text = "null" if value is None else str(value)
    return f"verify.{name}={text.lower() if isinstance(value, bool) else text}"


def _require_files(job: Job) -> None:
    """Refuse a pipe, a directory or a link to nothing in the place of a file of the job.

    Reading a pipe would wait for ever, and other commands would call the rest missing files.
    """
    results = [job.paths.result, job.paths.replacement]
    parts = [part_path(path) for path in results]
    owners = [path.with_name(f"{path.name}.owner") for path in parts]
    for path in (*results, *parts, *owners, job.paths.log, job.paths.colouring):
        if os.path.lexists(path) and not path.is_file():
            raise JobError(
                f"{path} is a directory, a pipe or a link to nothing, and the job keeps a file "
                "there; remove it, or choose another place with runs=..."
            )


def _require_own(job: Job, path: Path) -> None:
    """Refuse a result of another job; a file that cannot be read may be overwritten."""
    if path.exists() and fingerprint_of(path) not in ("", job.fingerprint):
        raise JobError(f"{path} is the result of another job; choose another place with runs=...")


def _require_storage(job: Job, stored: Storage, path: Path) -> None:
    """Refuse a finished result that is stored in another way than the options ask for.

    Raises:
        JobError: It is; the message names the option.
    """
    if other := stored.other_option(job):
        option, before, now = other
        raise JobError(
            f"{option}: {path} is finished and stored with {before}, and this command asks for "
            f"{now}: overwrite=true computes it again, {option_in_words(option, before)} accepts it"
        )


def identity_of(job: Job) -> str:
    """Say what the fingerprint covers, and what it cannot cover."""
    names = job.source.modules
    is_live = isinstance(job.config.function, LiveFunction)
    code = "the code of the function with what it refers to" if is_live else "weights"
    if not names and is_live:
        return f"its options, input data and {code} are the same"
    if not names:
        return "its options and input data are the same"
    others = " and ".join(filter(None, (job.source.left_out, _DATA)))
    listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
    modules = "1 module" if len(names) == 1 else f"{len(names)} modules"
    return (
        f"its options, input data, {code} and the source of {modules} ({listed}) are the same; "
        f"{others} are not compared"
    )


def _judge(job: Job, path: Path) -> None:
    """Raise the error of a finished result that is not verified as it must be."""
    with _opened(job, path) as result:
        error = _not_finite(job, result) or shortfall(job.required, result.verdict, str(path))
    if error is not None:
        raise error


def _not_finite(job: Job, result: Result | SparseResult) -> JobError | None:
    """Return the error of a finished result with entries that `nonfinite=fail` refuses."""
    count = (result.execution.get("nonfinite") or {}).get("count", 0)
    if job.nonfinite != "fail" or not count:
        return None
    return JobError(
        f"{result.path} holds {count} entries that are not finite, as nonfinite=record wrote them; "
        "it is kept, and nonfinite=record accepts it"
    )


def _opened(job: Job, path: Path) -> Result | SparseResult:
    if is_sparse_result(path):
        return open_sparse_result(path)
    return open_result(path, allow_partial=job.shard is not None)
