"""Diagonal blocks of curvature matrices and losses: those of explicit matrices."""

from pathlib import Path

import numpy as np
import pytest
import torch

import jobs
from outputs import Result, VerificationState
from tests.jobs.support.explicit_curvature import Network, curvature

STRATEGIES = ["reverse-loop", "vectorize", "forward-loop", "forward-mode"]


@pytest.mark.parametrize(
    ("op", "batch_size", "strategy"),
    [
        *(("ggn", 3, strategy) for strategy in STRATEGIES),
        *(("fisher", None, strategy) for strategy in ("vectorize", "forward-loop")),
        *(("hessian", 3, strategy) for strategy in ("reverse-loop", "forward-mode")),
    ],
)
def test_they_are_those_of_the_explicit_matrix(
    op: str, batch_size: int | None, strategy: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net, x, label = Network().double(), torch.randn(7, 3).double(), torch.arange(7) % 2
    result = jobs.compute(
        op,
        net,
        {"x": x, "label": label},
        loss={"kind": "cross_entropy", "batch_size": batch_size},
        wrt="params",
        structure={"kind": "blocks", "groups": ["first.*", "second.weight", "second.bias"]},
        strategy=strategy,
        chunk_size=5,
        runs=tmp_path,
        progress="quiet",
    )
    assert isinstance(result, Result)
    with result:
        expected = curvature(op, net, x, label)
        for name, lines in (("first.bias", slice(16)), ("second.weight", slice(16, 24))):
            found = result.block_of(name)[:]
            np.testing.assert_allclose(found, expected[lines, lines], rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(
            result.block_of("second.bias")[:], expected[24:, 24:], atol=1e-14
        )
        assert result.verdict.state is VerificationState.VERIFIED
        if op != "hessian":
            quotient = result.execution["verification"]["smallest_rayleigh_quotient"]
            assert quotient >= 0
