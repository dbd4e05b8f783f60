"""Products with vectors that are drawn by seed and index, chunk by chunk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import hessian, jacrev

import jobs
from jobs.errors import ConfigurationError
from outputs import Result, VerificationState, compare_results, merge_shards, open_result
from outputs import verify_result as verified

X = torch.linspace(0.2, 1, 12, dtype=torch.float64)


def function(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[:6] * x[6:], x[:6].sin()]).reshape(-1) * x.sum()


def energy(x: torch.Tensor) -> torch.Tensor:
    return function(x).pow(2).sum()


MATRICES = {
    "jvp": jacrev(function)(X).numpy().T, "vjp": jacrev(function)(X).numpy(),
    "hvp": hessian(energy)(X).numpy(), "vhp": hessian(energy)(X).numpy(),
}  # fmt: skip


@pytest.fixture
def compute(tmp_path: Path) -> Callable[..., Result]:
    def run(op: str, point: Any = X, **options: Any) -> Result:
        vectors = {"source": "random", "count": 40, **options.pop("vectors", {})}
        of = energy if op in ("hvp", "vhp") else function
        options = {"runs": tmp_path, "vectors": vectors, **options}
        result = jobs.compute(op, of, point, **options)
        assert isinstance(result, Result)
        return result

    return run


def flat(result: Result) -> np.ndarray:
    return np.stack([
        np.concatenate([v.reshape(-1) for v in result.vector(i).values()])
        for i in range(len(result[...]))
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("op", "strategy", "distribution"),
    [
        ("jvp", "forward-mode", "rademacher"),
        ("jvp", "reverse-loop", "normal"),
        ("vjp", "vectorize", "sparse"),
        ("hvp", "forward-mode", "rademacher"),
        ("vhp", "vectorize", "normal"),
    ],
)
def test_products_are_those_with_the_vectors_that_a_reader_draws(
    compute: Callable[..., Result], op: str, strategy: str, distribution: str
) -> None:
    vectors = {"distribution": distribution, "stored": False, "seed": 3}
    with compute(op, strategy=strategy, vectors=vectors, chunk_size=7) as result:
        np.testing.assert_allclose(result[...], flat(result) @ MATRICES[op], rtol=1e-11, atol=1e-12)
        assert result.verdict.state is VerificationState.VERIFIED
        assert not verified(result.path).problems
        assert not result.stored_arrays("vectors")
        np.testing.assert_array_equal(result.vectors[next(iter(result.vectors))], flat(result))
        text = f"40 {distribution} vectors, drawn by (seed 3, index)"
        assert str(result.drawn_vectors) == text


def test_hutchinsons_estimate_is_within_its_error(compute: Callable[..., Result]) -> None:
    vectors = {"distribution": "rademacher", "count": 2000}
    with compute("hvp", vectors=vectors) as result:
        samples = (flat(result) * result[...]).sum(axis=1)
    error = samples.std(ddof=1) / np.sqrt(len(samples))
    assert abs(samples.mean() - np.trace(MATRICES["hvp"])) < 5 * error
    # The variance of the estimate with such vectors is known: twice the squares off the diagonal.
    off = MATRICES["hvp"] - np.diag(np.diag(MATRICES["hvp"]))
    np.testing.assert_allclose(samples.var(), 2 * (off**2).sum(), rtol=0.3)


def test_the_numbers_depend_on_neither_chunks_nor_shards_nor_count(
    compute: Callable[..., Result], tmp_path: Path
) -> None:
    vectors = {"distribution": "sparse"}
    options: dict[str, Any] = {"vectors": vectors, "strategy": "vectorize"}
    with compute("hvp", chunk_size=1, runs=tmp_path / "one", **options) as one:
        for i in (0, 1):
            compute("hvp", shard=f"{i}/2", **options).close()
        merge_shards([*tmp_path.glob("energy-*")], tmp_path / "merged.h5")
        with open_result(tmp_path / "merged.h5") as merged:
            assert compare_results(one, merged).relative < 1e-14
            np.testing.assert_array_equal(flat(merged), flat(one))
        with compute("hvp", **{**options, "vectors": {**vectors, "count": 3}}) as few:
            np.testing.assert_allclose(few[...], one[:3], rtol=1e-12, atol=1e-14)
            assert few.fingerprint != one.fingerprint


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex128"])
def test_vectors_have_the_dtype_of_what_they_multiply(
    compute: Callable[..., Result], dtype: str
) -> None:
    point = X.to(getattr(torch, dtype))
    vectors = {"distribution": "normal", "stored": False, "count": 5}
    with compute("jvp", point, dtype=dtype, vectors=vectors, verify="off") as result:
        drawn = flat(result)
        assert drawn.dtype == {"bfloat16": "float32"}.get(dtype, dtype)
        expected = jacrev(function)(X).numpy() @ drawn.T
        share = {"bfloat16": 3e-2, "float32": 1e-5}.get(dtype, 1e-12)
        np.testing.assert_allclose(result[...], expected.T, atol=share * abs(expected).max())


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"distribution": "cauchy"}, "valid are normal, uniform, rademacher, sparse"),
        ({"distribution": "uniform", "stored": False}, "are rademacher, normal, sparse"),
        ({"distribution": "sparse", "stored": True}, "that are stored are normal, uniform"),
        ({"distribution": "sparse", "count": 0}, "from 1 on"),
        ({"distribution": "sparse", "seed": -1}, "vectors.seed=-1"),
        ({"distribution": "sparse", "scale": 0}, "other than 0"),
        (
            {"source": "named", "tensors": {"x": {"source": "random", "distribution": "sparse"}}},
            "all of vectors=random",
        ),
    ],
)
def test_vectors_that_do_not_fit_are_refused(
    compute: Callable[..., Result], vectors: dict[str, Any], message: str
) -> None:
    if vectors.get("source") == "named":
        with pytest.raises(ConfigurationError, match=message):
            jobs.compute("hvp", energy, X, vectors=vectors)
        return
    with pytest.raises(ConfigurationError, match=message):
        compute("hvp", vectors=vectors)
