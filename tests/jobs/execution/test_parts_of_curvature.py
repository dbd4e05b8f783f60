"""Selected rows and columns of curvature matrices: those of explicit matrices."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import jobs
from autodiff_core import GaussNewton
from jobs.errors import JobError
from jobs.streams.curvature import CurvatureStream
from outputs import Result, VerificationState, merge_shards, open_result, verify_result
from tests.jobs.support.explicit_curvature import Network, curvature

X = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)).double()
LABEL = torch.arange(7) % 2


@pytest.fixture
def compute(tmp_path: Path) -> Callable[..., Result]:
    def run(op: str, net: torch.nn.Module | None = None, **options: Any) -> Result:
        options = {
            "loss": {"kind": "cross_entropy", "batch_size": 3},
            "wrt": "params",
            "runs": tmp_path,
            "progress": "quiet",
            **options,
        }
        result = jobs.compute(op, net or network(), {"x": X, "label": LABEL}, **options)
        assert isinstance(result, Result)
        return result

    return run


def network() -> Network:
    torch.manual_seed(0)
    return Network().double()


ENTRY_1 = {"of": "first.weight", "index": [1]}
SELECTIONS = [
    # rows, columns, their numbers; first.weight has 12 elements, and there are 26.
    ({"tensor": "second.bias"}, None, [24, 25], range(26)),
    (None, {"tensor": ["first.bias", "second.weight"]}, range(26), range(12, 24)),
    (ENTRY_1, ENTRY_1, range(3, 6), range(3, 6)),
    ([0, 13, 14, 25], ENTRY_1, [0, 13, 14, 25], range(3, 6)),
    ("4:9", slice(6, 20), range(4, 9), range(6, 20)),
]


CASES = [
    *(
        (*each, "ggn", strategy)
        for each in SELECTIONS
        for strategy in ("vectorize", "forward-mode")
    ),
    *((*SELECTIONS[3], "ggn", strategy) for strategy in ("reverse-loop", "forward-loop", "auto")),
    *((*SELECTIONS[1], "fisher", strategy) for strategy in ("vectorize", "forward-loop")),
]


@pytest.mark.parametrize(("rows", "columns", "numbers", "others", "op", "strategy"), CASES)
def test_a_part_has_the_entries_of_the_explicit_matrix(
    compute: Callable[..., Result],
    rows: Any,
    columns: Any,
    numbers: Any,
    others: Any,
    op: str,
    strategy: str,
) -> None:
    whole = curvature(op, network(), X, LABEL)
    with compute(op, rows=rows, columns=columns, strategy=strategy, chunk_size=3) as result:
        expected = whole[np.ix_(numbers, others)]
        np.testing.assert_allclose(result[...], expected, rtol=1e-11, atol=1e-14)
        assert result.row_numbers.tolist() == [*numbers]
        assert result.column_numbers.tolist() == [*others]
        record = result.execution["verification"]
        assert record["state"] == "verified", record
        # Only of a part with the same rows and columns it says something.
        is_principal = [*numbers] == [*others]
        assert ("smallest_rayleigh_quotient" in record) == is_principal
        assert result.execution["lines_computed"] == min(len(numbers), len(others))
        assert not verify_result(result.path).problems
        # Readers that do not know curvature matrices refuse the file by its version.
        assert result.file.attrs["format_version"] == 6


def test_the_plan_has_the_passes_of_the_shorter_side() -> None:
    options: dict[str, Any] = {"loss": "cross_entropy", "wrt": "params", "rows": ENTRY_1}
    planned = jobs.plan("ggn", network(), {"x": X, "label": LABEL}, **options)
    assert planned.plan is not None
    assert planned.plan.passes == {"reverse": 3, "forward": 3}


def test_one_point_has_selected_elements_of_inputs(tmp_path: Path) -> None:
    torch.manual_seed(1)
    x, y, theta = torch.randn(7, 3).double(), torch.randn(7).double(), torch.randn(3).double()

    def outputs(theta: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ theta)

    jacobian = torch.func.jacrev(outputs)(theta, x).numpy()
    with jobs.compute(
        "ggn",
        outputs,
        {"theta": theta, "x": x, "label": y},
        wrt={"of": "inputs", "pattern": "theta"},
        loss={"kind": "mse", "reduction": "sum"},
        rows={"sample": 2},
        runs=tmp_path,
    ) as result:
        assert isinstance(result, Result)
        assert len(result.row_numbers) == 2
        expected = 2 * (jacobian.T @ jacobian)[result.row_numbers]
        np.testing.assert_allclose(result[...], expected, rtol=1e-12)
        assert result.verdict.state is VerificationState.VERIFIED


def test_shards_of_a_part_merge_into_it(compute: Callable[..., Result], tmp_path: Path) -> None:
    options: dict[str, Any] = {"strategy": "vectorize", "columns": ENTRY_1}
    shards = [compute("ggn", shard=f"{i}/2", **options) for i in (0, 1)]
    merge_shards([each.path for each in shards], tmp_path / "merged.h5")
    assert not verify_result(tmp_path / "merged.h5").problems
    with open_result(tmp_path / "merged.h5") as result:
        expected = curvature("ggn", network(), X, LABEL)[:, 3:6]
        np.testing.assert_allclose(result[...], expected, rtol=1e-11, atol=1e-14)
        # The axis with fewer lines is divided.
        assert [each.shape for each in shards] == [(26, 1), (26, 2)]
    for each in shards:
        each.close()


def test_a_part_that_was_interrupted_is_resumed_bit_for_bit(
    compute: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"strategy": "forward-loop", "columns": "3:9", "chunk_size": 1}
    with compute("ggn", runs=tmp_path / "whole", **options) as whole:
        expected = whole[...]
    block = CurvatureStream.block

    def failing(self: CurvatureStream, start: int, stop: int) -> Any:
        if start == 4 and [*tmp_path.rglob("*.part")]:
            raise KeyboardInterrupt
        return block(self, start, stop)

    with monkeypatch.context() as patched:
        patched.setattr(CurvatureStream, "block", failing)
        with pytest.raises(KeyboardInterrupt):
            compute("ggn", **options)
    with compute("ggn", **options) as result:
        assert result.execution["lines_resumed"] == 4
        np.testing.assert_array_equal(result[...], expected)


class Wrong(torch.autograd.Function):
    """The identity, with twice its derivative."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class WithAWrongBias(Network):
    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.nn.functional.linear(x, self.first.weight, Wrong.apply(self.first.bias))
        return self.second(torch.tanh(hidden))


@pytest.mark.parametrize(
    ("rows", "columns", "state"),
    [
        ({"tensor": "first.bias"}, None, "contradicted"),
        ({"tensor": "second.bias"}, {"tensor": "first.bias"}, "contradicted"),
        ({"tensor": "second.bias"}, {"tensor": "first.weight"}, "verified"),
    ],
)
def test_a_wrong_derivative_of_a_selected_line_is_found(
    compute: Callable[..., Result], rows: Any, columns: Any, state: str
) -> None:
    torch.manual_seed(0)
    net = WithAWrongBias().double()
    options = {"rows": rows, "columns": columns, "strategy": "vectorize"}
    if state == "contradicted":
        with pytest.raises(JobError, match="contradict"):
            compute("ggn", net, **options)
        return
    with compute("ggn", net, **options) as result:
        assert result.verdict.state == state


def test_blocks_of_an_honest_part_that_are_changed_are_found(
    compute: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_parts = GaussNewton.add_parts

    def changed(self: GaussNewton, parts: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> None:
        add_parts(self, parts)
        for _, total, _ in parts:
            total[0, -1] *= 1.001

    monkeypatch.setattr(GaussNewton, "add_parts", changed)
    with pytest.raises(JobError, match="disagree"):
        compute("ggn", rows="2:5", columns="4:9", strategy="vectorize")
