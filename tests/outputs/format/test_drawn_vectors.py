"""Vectors that are drawn by seed and index: their moments, their numbers, their limits."""

import numpy as np
import pytest

from outputs import DrawnVectors, ResultError, TensorSpec

TENSORS = (
    TensorSpec("a", (3, 2), "float64"),
    TensorSpec("c", (2,), "complex64"),
    TensorSpec("h", (), "bfloat16"),
)
COUNT = 4000


@pytest.mark.parametrize("distribution", DrawnVectors.DISTRIBUTIONS)
def test_the_entries_are_uncorrelated_with_variance_one(distribution: str) -> None:
    drawn = DrawnVectors(distribution, 5, COUNT, TENSORS)
    stacked = drawn.stacked(0, COUNT)
    flat = np.concatenate([array.reshape(COUNT, -1) for array in stacked.values()], axis=1)
    flat = flat.astype(complex)
    # Five deviations of a mean; the fourth moment of a normal or sparse entry is 3.
    limit = 5 * np.sqrt(3 / COUNT)
    assert abs(flat.conj().T @ flat / COUNT - np.eye(9)).max() < limit
    assert abs(flat.mean(axis=0)).max() < limit
    assert abs((flat[:-1].conj() * flat[1:]).mean(axis=0)).max() < limit
    for index in (0, 17, COUNT - 1):
        for name, array in drawn.vector(index).items():
            np.testing.assert_array_equal(array, stacked[name][index])
    # What bfloat16 holds.
    assert not (stacked["h"].view(np.uint32) & 0xFFFF).any()
    values = np.unique(stacked["a"])
    expected = {"rademacher": [-1, 1], "sparse": [-np.sqrt(3), 0, np.sqrt(3)]}
    if distribution in expected:
        np.testing.assert_array_equal(values, expected[distribution])
    else:
        assert len(values) == stacked["a"].size


def test_the_numbers_are_those_of_the_raw_generator() -> None:
    """Written out once more, so that no later version draws others."""
    tensors = (TensorSpec("x", (5,), "float64"),)
    drawn = {
        name: DrawnVectors(name, 2**62, 9, tensors, scale=2.0).vector(3)["x"].tolist()
        for name in DrawnVectors.DISTRIBUTIONS
    }
    raw = [int(n) for n in np.random.Philox(key=[2**62, 3]).random_raw(6)]
    assert drawn["rademacher"] == [2.0 if raw[0] >> bit & 1 else -2.0 for bit in range(5)]
    halves = [n % 2**32 for n in raw[:3]] + [n >> 32 for n in raw[:3]]
    faces = [6 * n >> 32 for n in halves]
    root = 2 * np.sqrt(3.0)
    assert drawn["sparse"] == [(face == 0) * root - (face == 1) * root for face in faces[:5]]
    u = [(n >> 11) / 2**53 for n in raw]
    pairs = [
        (np.sqrt(-2 * np.log(1 - a)), 2 * np.pi * b) for a, b in zip(u[:3], u[3:], strict=True)
    ]
    normal = [2 * r * np.cos(t) for r, t in pairs] + [2 * r * np.sin(t) for r, t in pairs]
    np.testing.assert_allclose(drawn["normal"], normal[:5], rtol=1e-12)


def test_what_cannot_be_drawn_is_refused() -> None:
    drawn = DrawnVectors("normal", 0, 10**15, (TensorSpec("x", (1000,), "float64"),))
    with pytest.raises(ResultError, match=r"vector\(i\) draws one"):
        drawn.stacked(0, 10**15)
    with pytest.raises(ResultError, match="no vectors"):
        drawn.vector(10**15)
    for changes in ({"count": 0}, {"seed": -1}, {"distribution": "cauchy"}, {"scale": np.inf}):
        with pytest.raises(ResultError):
            DrawnVectors(**{**vars(drawn), **changes})
