"""Diagonal blocks of curvature matrices and losses: those of explicit matrices."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jobs
from jobs.streams.curvature import CurvatureStream
from outputs import Result, VerificationState
from tests.jobs.support.explicit_curvature import Network, curvature
from tests.jobs.support.interruption import interrupted_after

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


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
def test_several_blocks_take_one_pass_over_the_data(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net, x, label = Network().double(), torch.randn(7, 3).double(), torch.arange(7) % 2
    passes: list[int] = []
    add_parts = CurvatureStream.add_parts

    def counted(self: CurvatureStream, function: Any, inputs: Any, parts: Any, **options: Any):
        passes.append(len(parts))
        return add_parts(self, function, inputs, parts, **options)

    monkeypatch.setattr(CurvatureStream, "add_parts", counted)
    given: dict[str, Any] = {"wrt": "params", "structure": "blocks", "strategy": strategy}
    given |= {"loss": {"kind": "cross_entropy", "batch_size": 3}, "progress": "quiet"}
    for chunk_size, last in ((26, [4]), (13, [2, 3])):
        passes.clear()
        runs = tmp_path / str(chunk_size)
        result = jobs.compute(
            "ggn", net, {"x": x, "label": label}, chunk_size=chunk_size, runs=runs, **given
        )
        # Rows 12 to 16 are those of the first bias, and 24 to 26 those of the last.
        assert passes[-len(last) :] == last
        assert isinstance(result, Result)
        with result:
            expected = curvature("ggn", net, x, label)
            for name, lines in (
                ("first.weight", slice(12)),
                ("first.bias", slice(12, 16)),
                ("second.bias", slice(24, 26)),
            ):
                found = result.block_of(name)[:]
                np.testing.assert_allclose(found, expected[lines, lines], rtol=1e-11, atol=1e-14)
            assert result.verdict.state is VerificationState.VERIFIED


def test_a_chunk_of_several_blocks_continues_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net, x, label = Network().double(), torch.randn(7, 3).double(), torch.arange(7) % 2

    def compute(runs: Path) -> Result:
        result = jobs.compute(
            "ggn",
            net,
            {"x": x, "label": label},
            loss={"kind": "cross_entropy", "batch_size": 3},
            wrt="params",
            structure="blocks",
            strategy="vectorize",
            chunk_size=7,
            runs=runs,
            progress="quiet",
        )
        assert isinstance(result, Result)
        return result

    with interrupted_after(2, monkeypatch):
        compute(tmp_path / "interrupted")
    with compute(tmp_path / "interrupted") as resumed, compute(tmp_path / "whole") as whole:
        assert resumed.execution["lines_resumed"] == 14
        for name in whole.groups:
            found, expected = (each.block_of(name[0])[:] for each in (resumed, whole))
            np.testing.assert_array_equal(found, expected)
        assert resumed.verdict.state is VerificationState.VERIFIED
