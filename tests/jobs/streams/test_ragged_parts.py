"""Selected rows and columns at points of different sizes: those of torch's own matrices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacrev

import jobs
from jobs.errors import ConfigurationError, JobError
from jobs.streams.ragged import RaggedStream
from outputs import Result, VerificationState, verify_result
from tests.jobs.support.wrong_derivatives import wrong_at
from tests.support.pairs import pairs

SIZES = [4, 6, 2]
OFFSETS = np.cumsum([0, *SIZES]).tolist()
_generator = torch.Generator().manual_seed(0)
POSITIONS = torch.rand(sum(SIZES), 3, generator=_generator, dtype=torch.float64)
CHARGES = torch.rand(sum(SIZES), generator=_generator, dtype=torch.float64)


def energies(positions: Tensor, charges: Tensor) -> dict[str, Tensor]:
    apart = (positions[:, None] - positions[None]).pow(2).sum(-1)
    local = (charges / (apart + 1)).sum(1)
    return {"energy": local.sum(), "local": local, "moment": positions.sin() * charges.sum()}


def energy(positions: Tensor, charges: Tensor) -> Tensor:
    return energies(positions, charges)["energy"] + positions.sin().sum() * charges.square().sum()


def whole(op: str, number: int) -> np.ndarray:
    """Return the whole matrix at a point by torch's own functions."""
    size, part = SIZES[number], slice(*OFFSETS[number : number + 2])

    def flat(x: Tensor) -> Tensor:
        given = x[: 3 * size].reshape(size, 3), x[3 * size :]
        if op == "hessian":
            return energy(*given)
        return torch.cat([y.reshape(-1) for y in energies(*given).values()])

    x = torch.cat([POSITIONS[part].reshape(-1), CHARGES[part]])
    return (hessian if op == "hessian" else jacrev)(flat)(x).numpy()


@pytest.fixture
def compute(tmp_path: Path) -> Callable[..., Result]:
    def run(op: str, function: Callable[..., Any] | None = None, **options: Any) -> Result:
        point = {"positions": POSITIONS, "charges": CHARGES}
        points = {"by": "offsets", "offsets": OFFSETS}
        function = function or {"jacobian": energies, "hessian": energy}[op]
        options = {"runs": tmp_path, "progress": "quiet", "points": points, **options}
        result = jobs.compute(op, function, point, **options)
        assert isinstance(result, Result)
        return result

    return run


ATOM_1 = {"of": "positions", "index": [1]}
N_1 = lambda size: [3, 4, 5]  # noqa: E731
SELECTIONS: list[tuple[str, Any, Any, Callable[[int], Any], Callable[[int], Any]]] = [
    # op, rows, columns, and their numbers at a point of a size
    ("jacobian", None, ATOM_1, lambda n: range(4 * n + 1), N_1),
    ("jacobian", {"tensor": ["energy", "moment"]}, {"tensor": "charges"},
     lambda n: [0, *range(n + 1, 4 * n + 1)], lambda n: range(3 * n, 4 * n)),
    ("jacobian", "0:3", [0, 4], lambda n: range(3), lambda n: [0, 4]),
    ("hessian", ATOM_1, ATOM_1, N_1, N_1),
    ("hessian", None, ATOM_1, lambda n: range(4 * n), N_1),
    ("hessian", {"tensor": "charges"}, {"tensor": "positions"},
     lambda n: range(3 * n, 4 * n), lambda n: range(3 * n)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("selection", "strategy", "chunk_size"),
    pairs(SELECTIONS, ["vectorize", "forward-mode"], [4, "auto"]),
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
        for number, size in enumerate(SIZES):
            of_rows, of_columns = [*numbers(size)], [*others(size)]
            found, expected = result.point(number), whole(op, number)[np.ix_(of_rows, of_columns)]
            np.testing.assert_allclose(found[:], expected, rtol=1e-12, atol=1e-13)
            assert found.row_numbers.tolist() == of_rows
            assert found.column_numbers.tolist() == of_columns
            assert found.point["positions"].shape == (size, 3)
            if columns == ATOM_1:
                name = "moment" if op == "jacobian" else "positions"
                expected = found.block(name, "positions")
                assert expected.shape[-2:] == (1, 3)
        assert result.verdict.state is VerificationState.VERIFIED
        assert not verify_result(result.path).problems
        assert result.file.attrs["format_version"] == 11
        # Counted over all points.
        assert result.column_numbers[-1] == 4 * sum(SIZES[:2]) + [*others(SIZES[2])][-1]


def test_a_part_that_was_interrupted_is_resumed_bit_for_bit(
    compute: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"strategy": "reverse-loop", "columns": ATOM_1}
    with compute("hessian", runs=tmp_path / "whole", **options) as whole:
        expected = [whole.point(number)[:] for number in range(3)]
    block = RaggedStream.block

    def failing(self: RaggedStream, start: int, stop: int) -> Any:
        if start >= 40 and [*tmp_path.rglob("*.part")]:
            raise KeyboardInterrupt
        return block(self, start, stop)

    with monkeypatch.context() as patched:
        patched.setattr(RaggedStream, "block", failing)
        with pytest.raises(KeyboardInterrupt):
            compute("hessian", **options)
    with compute("hessian", **options) as result:
        assert result.execution["lines_resumed"] == 40
        for number, matrix in enumerate(expected):
            np.testing.assert_array_equal(result.point(number)[:], matrix)


def test_several_processes_compute_points_that_are_larger_than_a_chunk(
    compute: Callable[..., Result], tmp_path: Path
) -> None:
    options: dict[str, Any] = {"strategy": "forward-mode", "columns": {"tensor": "positions"}}
    with compute("hessian", devices="cpu:2", chunk_size=2, **options) as result:
        for number, size in enumerate(SIZES):
            expected = whole("hessian", number)[:, : 3 * size]
            np.testing.assert_allclose(result.point(number)[:], expected, rtol=1e-12, atol=1e-13)
        assert result.verdict.state is VerificationState.VERIFIED


@pytest.mark.parametrize(
    ("op", "options", "message"),
    [
        ("jacobian", {"columns": "0:9"}, "at point 2: columns=0:9: .* outside; .* 8 columns"),
        ("jacobian", {"columns": [0, 6]},
         r"at point 2 this selects charges\[0\], and at the first positions\[2, 0\]; valid are"),
        ("jacobian", {"rows": "5:"}, "at point 1 this selects 20, and at the first 12 lines"),
        ("jacobian", {"rows": {"sample": 3}}, "at point 1 this selects"),
        ("hessian", {"columns": {"of": "positions", "index": 2}}, "at point 2: .* 2 entries"),
        ("hessian", {"columns": {"tensor": "cell"}}, "at point 0: .*valid are positions, charges"),
    ],
)  # fmt: skip
def test_a_selection_that_means_something_else_at_a_point_is_refused(
    compute: Callable[..., Result], tmp_path: Path, op: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        compute(op, **options)
    assert not [*tmp_path.rglob("*.h5*")]


@pytest.mark.parametrize("op", ["jacobian", "hessian"])
def test_a_wrong_derivative_at_one_point_is_found_where_it_is_selected(
    compute: Callable[..., Result], op: str
) -> None:
    wrong = wrong_at(CHARGES[-1])

    def function(positions: Tensor, charges: Tensor) -> Tensor:
        value = energy(positions, wrong(charges))
        return value if op == "hessian" else value.reshape(1)

    with pytest.raises(JobError, match="contradict"):
        compute(op, function, columns={"tensor": "charges"}, strategy="vectorize")
    positions = {"tensor": "positions"}
    rows = positions if op == "hessian" else None
    with compute(op, function, rows=rows, columns=positions) as result:
        assert result.verdict.state is VerificationState.VERIFIED


@pytest.mark.parametrize("op", ["ggn", "fisher", "hessian"])
def test_each_point_has_lines_of_the_matrices_of_a_loss(op: str, tmp_path: Path) -> None:
    label = torch.arange(sum(SIZES)) % 3

    def scores(positions: Tensor) -> Tensor:
        return (positions.sin().sum(0) * positions).cumsum(0)

    def losses(positions: Tensor, label: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(scores(positions), label, reduction="none")

    with jobs.compute(
        op,
        scores,
        {"positions": POSITIONS, "label": label},
        points={"by": "offsets", "offsets": OFFSETS},
        loss={"kind": "cross_entropy", "reduction": "sum"},
        rows=[1, 4],
        columns={"tensor": "positions"} if op == "hessian" else ATOM_1,
        runs=tmp_path,
    ) as result:
        assert isinstance(result, Result)
        for number, size in enumerate(SIZES):
            part = slice(*OFFSETS[number : number + 2])
            x, of_x = POSITIONS[part], label[part]
            jacobian = jacrev(losses)(x, of_x).reshape(size, -1)
            if op == "hessian":
                matrix = hessian(lambda x: losses(x, of_x).sum())(x).reshape(3 * size, -1)  # noqa: B023
            elif op == "fisher":
                matrix = jacobian.T @ jacobian
            else:
                z, jacobian = scores(x), jacrev(scores)(x).reshape(3 * size, -1)
                loss = lambda z: torch.nn.functional.cross_entropy(z, of_x, reduction="sum")  # noqa: B023, E731
                matrix = jacobian.T @ hessian(loss)(z).reshape(3 * size, -1) @ jacobian
            expected = matrix[[1, 4]] if op == "hessian" else matrix[[1, 4]][:, 3:6]
            np.testing.assert_allclose(result.point(number)[:], expected, rtol=1e-11, atol=1e-13)
        assert result.verdict.state is VerificationState.VERIFIED


def test_a_wrong_entry_of_one_point_is_found(
    compute: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    within = RaggedStream._within

    def changed(self: RaggedStream, number: int, start: int, stop: int) -> Any:
        values, fallbacks = within(self, number, start, stop)
        values = values.clone()
        values[-1, -1] += 1e-4 if number == 1 else 0
        return values, fallbacks

    monkeypatch.setattr(RaggedStream, "_within", changed)
    with pytest.raises(JobError, match="disagree with an independent product"):
        compute("hessian", rows={"tensor": "charges"}, columns=ATOM_1, strategy="vectorize")
