"""Whole Jacobians and Hessians as jobs: ``python -m jobs.run``, and `compute` from Python.

Names are imported when they are used: the command line loads torch late.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jobs.name_clashes import require_own_packages

if TYPE_CHECKING:
    from jobs.calls.compute import PlannedJob, compute, plan
    from jobs.calls.opening import VerificationWarning
    from jobs.calls.runs import Run, find, report
    from jobs.calls.submission import submit
    from jobs.errors import ConfigurationError, ContradictedError, JobError

require_own_packages()

_PLACES = {
    "compute": "jobs.calls.compute",
    "plan": "jobs.calls.compute",
    "PlannedJob": "jobs.calls.compute",
    "VerificationWarning": "jobs.calls.opening",
    "Run": "jobs.calls.runs",
    "find": "jobs.calls.runs",
    "submit": "jobs.calls.submission",
    "JobError": "jobs.errors",
    "ConfigurationError": "jobs.errors",
    "ContradictedError": "jobs.errors",
}

__all__ = [
    "ConfigurationError",
    "ContradictedError",
    "JobError",
    "PlannedJob",
    "Run",
    "VerificationWarning",
    "compute",
    "find",
    "plan",
    "report",
    "submit",
]


def __getattr__(name: str) -> Any:
    if name == "report":
        # The module of the command takes this name when it is imported; it can be called, too.
        return import_module("jobs.report")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
