"""Vectors from a file and random ones, and the messages if they do not fit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import JobError
from jobs.job import Job
from outputs import Result
from tests.jobs.support.source_files import SAVERS, options, write_bad_files

Resolve = Callable[..., Job]
Run = Callable[..., Result]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("save", SAVERS)
def test_vectors_from_a_file(
    save: Callable[..., list[str]], count: int, directory: Path, run_job: Run
) -> None:
    vectors = np.random.default_rng(0).standard_normal((count, 4))
    overrides = (
        "function=mlp",
        "function.n=4",
        *options("vectors", save(directory, {"y": vectors})),
    )
    result = run_job("op=vjp", "strategy=vectorize", *overrides)
    matrix = run_job("op=jacobian", "strategy=reverse-loop", "function=mlp", "function.n=4")[...]
    np.testing.assert_allclose(result[...], vectors @ matrix, rtol=1e-10)
    np.testing.assert_array_equal(result.vectors["y"], vectors)


def test_random_vectors_are_seeded(resolved: Resolve) -> None:
    overrides = ("op=jvp", "function=mlp", "function.n=4", "vectors.count=3")
    job, again, other = (resolved(*overrides, f"vectors.seed={seed}") for seed in (0, 0, 1))
    assert job.vectors["x"].shape == (3, 4)
    assert torch.equal(job.vectors["x"], again.vectors["x"])
    assert not torch.equal(job.vectors["x"], other.vectors["x"])
    assert job.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        (["random", "count=0"], r"vectors.count=0: valid are integers from 1 on"),
        (["numpy", "path=nowhere.npy"], r"vectors.path=nowhere.npy: there is no such file"),
        (["numpy", "path=five.npy"], r"vectors: .*five|the source holds a single array"),
        (["numpy", "path=counts.npz"], r"same leading dimension.*\(2, 3\).*\(1,\)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_vectors_that_do_not_fit_are_reported(
    overrides: list[str], pattern: str, directory: Path, resolved: Resolve
) -> None:
    write_bad_files(directory)
    small = ("op=jvp", "function=gp_residual", "function.n=5", "function.inducing=3")
    with pytest.raises(JobError, match=pattern):
        resolved(*small, *options("vectors", overrides))
