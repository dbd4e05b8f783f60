"""The starts of a job, and the versions of the software under which each of them computed."""

from __future__ import annotations

import functools
import platform
import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import numpy
import torch

# The execution record has a limited size; a job may be started again a thousand times.
_MOST_RECORDED = 100


def this_attempt(packages: Iterable[str]) -> dict[str, Any]:
    """Return what is recorded of a start: time, host and versions.

    Args:
        packages: The names under which the function imports installed packages.
    """
    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
    }
    for package in packages:
        if package not in versions and (version := _version(package)):
            versions[package] = version
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "versions": versions,
    }


def attempt_of_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a result says of its first start."""
    known = ("python", "torch", "numpy")
    return {
        "started": provenance.get("created", ""),
        "host": provenance.get("host", ""),
        "versions": {name: provenance[name] for name in known if name in provenance},
        "lines_before": 0,
    }


def other_versions(attempts: Sequence[Mapping[str, Any]], now: Mapping[str, str]) -> str:
    """Return which versions of earlier starts differ from those of now, in words."""
    found: dict[str, None] = {}
    for attempt in attempts:
        for name, version in attempt["versions"].items():
            if now.get(name, version) != version:
                found[f"{name} {version}, now {now[name]}"] = None
    return "; ".join(found)


def recorded(attempts: Sequence[Mapping[str, Any]], lines: int) -> list[dict[str, Any]]:
    """Return what the result keeps of all starts: the first one and the last ones.

    Args:
        attempts: The starts, each with the ``lines_before`` that it found.
        lines: The rows or columns of the file, all computed.
    """
    before = [*(attempt["lines_before"] for attempt in attempts), lines]
    told = [
        {
            **{name: value for name, value in attempt.items() if name != "lines_before"},
            # Fewer than before where blocks were damaged and are computed again.
            "lines_computed": max(0, following - own),
        }
        for attempt, own, following in zip(attempts, before[:-1], before[1:], strict=True)
    ]
    return told[:1] + told[1:][-_MOST_RECORDED:]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        # A distribution of another name, such as scikit-learn for sklearn.
        starts = [f"\n{package}{end}" for end in ("/", ".", "\n")]
        for distribution, files in _distributions():
            if any(start in files for start in starts):
                return distribution.version
        return ""


@functools.cache
def _distributions() -> list[tuple[metadata.Distribution, str]]:
    """Return each installed distribution with the lines that name its files.

    `importlib.metadata.packages_distributions` makes an object of each file, ten times slower.
    """
    return [
        (
            each,
            "\n".join(("", each.read_text("top_level.txt") or "", each.read_text("RECORD") or "")),
        )
        for each in metadata.distributions()
    ]
