"""Selected rows and columns at many points: those of torch's own matrices, or a refusal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacrev

import jobs
from jobs.errors import JobError
from jobs.streams.at_points import PointStream
from outputs import Result, VerificationState, merge_shards, open_result, verify_result
from tests.jobs.support.wrong_derivatives import wrong_at
from tests.support.pairs import pairs

COUNT, ATOMS = 4, 3
_positions = torch.linspace(0.1, 2.0, 3 * COUNT * ATOMS, dtype=torch.float64).sin()
POINTS = {
    "positions": _positions.reshape(COUNT, ATOMS, 3),
    "cell": torch.linspace(1.0, 2.0, 2 * COUNT, dtype=torch.float64).reshape(COUNT, 2),
}


def energies(positions: Tensor, cell: Tensor) -> dict[str, Tensor]:
    apart = (positions[:, None] - positions[None]).pow(2).sum(-1)
    local = (1 / (apart + 1)).sum(1) * cell.prod()
    return {"energy": local.sum(), "local": local, "moment": positions.sin() * cell.sum()}


def energy(positions: Tensor, cell: Tensor) -> Tensor:
    return energies(positions, cell)["energy"] + positions.sin().prod() * cell.square().sum()


def each(derivative: Callable[..., Any], function: Callable[..., Any]) -> np.ndarray:
    """Return the whole matrices by torch's own functions, of shape (points, rows, columns)."""

    def flat(x: Tensor) -> Tensor:
        value = function(x[: 3 * ATOMS].reshape(ATOMS, 3), x[3 * ATOMS :])
        leaves = value.values() if isinstance(value, dict) else [value]
        found = torch.cat([y.reshape(-1) for y in leaves])
        return found if derivative is jacrev else found[0]

    points = torch.cat([tensor.reshape(COUNT, -1) for tensor in POINTS.values()], dim=1)
    return np.stack([derivative(flat)(x).numpy() for x in points])


WHOLE = {"jacobian": each(jacrev, energies), "hessian": each(hessian, energy)}
ATOM_1 = {"of": "positions", "index": [1]}
N_1 = [3, 4, 5]


@pytest.fixture
def compute(tmp_path: Path) -> Callable[..., Result]:
    def run(op: str, function: Callable[..., Any] | None = None, **options: Any) -> Result:
        function = function or {"jacobian": energies, "hessian": energy}[op]
        options = {"points": "leading", "runs": tmp_path, "progress": "quiet", **options}
        result = jobs.compute(op, function, POINTS, **options)
        assert isinstance(result, Result)
        return result

    return run


SELECTIONS = [
    # op, rows, columns, their numbers
    ("jacobian", None, ATOM_1, range(13), N_1),
    ("jacobian", {"tensor": "moment"}, [0, 4, 10], range(4, 13), [0, 4, 10]),
    ("hessian", ATOM_1, ATOM_1, N_1, N_1),
    ("hessian", None, {"tensor": "cell"}, range(11), [9, 10]),
    ("hessian", [1, 10], slice(0, 5), [1, 10], range(5)),
]


@pytest.mark.parametrize(
    ("selection", "strategy", "chunk_size"),
    pairs(SELECTIONS, ["vectorize", "forward-mode"], [2, 33, "auto"]),
)
def test_each_point_has_the_entries_of_its_whole_matrix(
    compute: Callable[..., Result],
    selection: tuple[Any, ...],
    strategy: str,
    chunk_size: Any,
) -> None:
    op, rows, columns, numbers, others = selection
    options = {"rows": rows, "columns": columns, "chunk_size": chunk_size}
    with compute(op, strategy=strategy, **options) as result:
        expected = WHOLE[op][:, [*numbers]][:, :, [*others]]
        np.testing.assert_allclose(result[...], expected, rtol=1e-12, atol=1e-13)
        np.testing.assert_array_equal(result.point(2)[...], result[2])
        assert result.row_numbers.tolist() == [*numbers]
        assert result.column_numbers.tolist() == [*others]
        assert result.points["positions"].shape == (COUNT, ATOMS, 3)
        assert result.verdict.state is VerificationState.VERIFIED
        assert not verify_result(result.path).problems
        if columns == ATOM_1 and rows is None:
            assert result.block("moment", "positions").shape == (COUNT, ATOMS, 3, 1, 3)


X = torch.randn(COUNT, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
LABEL = torch.tensor([2, 0, 1, 1])
WEIGHT = torch.randn(3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def scores(x: Tensor) -> Tensor:
    return x.sin() @ WEIGHT.T


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
@pytest.mark.parametrize("op", ["ggn", "fisher", "hessian", "jacobian"])
@pytest.mark.parametrize("rows", [[1, 3], None])
def test_each_point_has_lines_of_the_matrices_of_a_loss(
    op: str, rows: Any, strategy: str, tmp_path: Path
) -> None:
    def loss(x: Tensor, label: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(scores(x), label)

    options: dict[str, Any] = {
        "points": {"by": "leading", "batched": True},
        "loss": "cross_entropy",
        "strategy": strategy,
    }
    given = {"x": X, "label": LABEL}
    rows = None if op == "jacobian" else rows
    with jobs.compute(
        op, scores, given, rows=rows, columns=[0, 1, 3], runs=tmp_path, **options
    ) as result:
        assert isinstance(result, Result)
        for number, (x, label) in enumerate(zip(X, LABEL, strict=True)):
            gradient = jacrev(loss)(x, label).reshape(1, -1)
            whole = gradient
            if op == "hessian":
                whole = hessian(loss)(x, label)
            if op == "fisher":
                whole = gradient.T @ gradient
            if op == "ggn":
                z, jacobian = scores(x), jacrev(scores)(x)
                of_loss = hessian(torch.nn.functional.cross_entropy)(z, label)
                whole = jacobian.T @ of_loss @ jacobian
            expected = whole[:, [0, 1, 3]] if rows is None else whole[rows][:, [0, 1, 3]]
            np.testing.assert_allclose(result[number], expected, rtol=1e-11, atol=1e-14)
        assert result.verdict.state is VerificationState.VERIFIED


def test_a_selection_goes_with_constants_of_each_point(tmp_path: Path) -> None:
    number = torch.tensor([2, 0, 1, 3])

    def function(x: Tensor, number: Tensor) -> Tensor:
        return x.sin() * x[number] ** 2

    with jobs.compute(
        "jacobian", function, {"x": X, "number": number}, points="leading", columns="1:3",
        rows=[0, 2], runs=tmp_path,
    ) as result:  # fmt: skip
        assert isinstance(result, Result)
        for found, x, n in zip(result[...], X, number, strict=True):
            np.testing.assert_allclose(found, jacrev(function)(x, n)[[0, 2], 1:3], rtol=1e-12)


def test_a_part_that_was_interrupted_is_resumed_bit_for_bit(
    compute: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"strategy": "reverse-loop", "columns": ATOM_1, "chunk_size": 11}
    with compute("hessian", runs=tmp_path / "whole", **options) as whole:
        expected = whole[...]
    block = PointStream.block

    def failing(self: PointStream, start: int, stop: int) -> Any:
        if start == 11 and [*tmp_path.rglob("*.part")]:
            raise KeyboardInterrupt
        return block(self, start, stop)

    with monkeypatch.context() as patched:
        patched.setattr(PointStream, "block", failing)
        with pytest.raises(KeyboardInterrupt):
            compute("hessian", **options)
    with compute("hessian", **options) as result:
        # The first point, and what planning has measured: one or two of the last points.
        assert result.execution["lines_resumed"] in (22, 33)
        np.testing.assert_array_equal(result[...], expected)


def test_shards_merge_and_readers_name_the_lines(
    compute: Callable[..., Result], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"strategy": "vectorize", "columns": ATOM_1, "rows": {"sample": 4}}
    shards = [compute("hessian", shard=f"{i}/2", **options) for i in (0, 1)]
    merge_shards([each.path for each in shards], tmp_path / "merged.h5")
    for shard in shards:
        shard.close()
    with open_result(tmp_path / "merged.h5") as result:
        expected = WHOLE["hessian"][:, result.row_numbers][:, :, N_1]
        np.testing.assert_allclose(result[...], expected, rtol=1e-12, atol=1e-13)
        data = result.as_xarray()["hessian"]
        row = result.row_numbers[2]
        np.testing.assert_array_equal(data.sel(row=row, column=4), result[:, 2, 1])


@pytest.mark.parametrize("op", ["jacobian", "hessian"])
def test_a_wrong_derivative_at_one_point_is_found_where_it_is_selected(
    compute: Callable[..., Result], op: str
) -> None:
    wrong = wrong_at(POINTS["cell"][2, 0])

    def function(positions: Tensor, cell: Tensor) -> Tensor:
        value = energy(positions, wrong(cell))
        return value if op == "hessian" else value.reshape(1)

    with pytest.raises(JobError, match="contradict"):
        compute(op, function, columns={"tensor": "cell"}, strategy="vectorize")
    with compute(op, function, columns={"tensor": "positions"}, rows=[0]) as result:
        assert result.verdict.state is VerificationState.VERIFIED


def test_a_wrong_entry_of_one_point_is_found(
    compute: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    within = PointStream._within

    def changed(self: PointStream, point: int, start: int, stop: int) -> Tensor:
        values = within(self, point, start, stop).clone()
        values[-1, -1] += 1e-4 if point == 1 else 0
        return values

    monkeypatch.setattr(PointStream, "_within", changed)
    with pytest.raises(JobError, match="disagree with an independent product"):
        compute("hessian", columns=ATOM_1, rows=[0, 9], strategy="vectorize", chunk_size=2)
