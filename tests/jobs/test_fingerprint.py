"""What the fingerprint of a job depends on."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.job import Job

Resolve = Callable[..., Job]


def test_a_changed_source_is_another_job(directory: Path, resolved: Resolve) -> None:
    prints = set()
    for power in (2, 3):
        # The function's own file, reached through another.
        (directory / f"inner{power}").mkdir()
        (directory / "inner.py").write_text(f"def f(x):\n    return x ** {power}\n")
        (directory / "outer.py").write_text(
            "from inner import f\nfrom torch import ones\ndef p(): return ones(3)\n"
        )
        target = ("op=jacobian", "function=python", "function.target=outer:f")
        job = resolved(*target, "function.point=outer:p")
        assert {file.name for file in job.function.files} == {"inner.py", "outer.py"}
        prints.add(job.fingerprint)
        for name in ("inner", "outer"):
            del sys.modules[name]
    assert len(prints) == 2


@pytest.mark.parametrize(
    "other", ["chunk_size=1", "output.compression=gzip", "devices=cpu", "runs=elsewhere"]
)
def test_what_does_not_change_the_numbers_does_not_change_the_job(
    other: str, resolved: Resolve
) -> None:
    overrides = ("function=rosenbrock", "function.n=4")
    assert resolved(*overrides).fingerprint == resolved(*overrides, other).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        "op=jacobian",
        "strategy=vectorize",
        "function.n=5",
        "dtype=float32",
        "seed=1",
        "inputs=random",
    ],
)
def test_what_changes_the_numbers_changes_the_job(other: str, resolved: Resolve) -> None:
    overrides = ("function=rosenbrock", "function.n=4")
    assert resolved(*overrides).fingerprint != resolved(*overrides, other).fingerprint
