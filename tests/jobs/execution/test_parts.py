"""Selected rows and columns of a matrix: the numbers of torch's own whole matrix, or a refusal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacrev

import jobs
from autodiff_core.sparse import colour, detect_sparsity
from jobs.errors import ConfigurationError
from jobs.streams.of_lines import LinesStream
from outputs import (
    Result,
    ResultError,
    SparseResult,
    VerificationState,
    compare_results,
    merge_shards,
    open_result,
    verify_result,
)

ATOMS = 4
POSITIONS = torch.linspace(0.1, 2.0, 3 * ATOMS, dtype=torch.float64).sin().reshape(ATOMS, 3)
CELL = torch.tensor([1.0, 1.5, 2.0], dtype=torch.float64)
POINT = {"positions": POSITIONS, "cell": CELL}


def energies(positions: Tensor, cell: Tensor) -> dict[str, Tensor]:
    apart = (positions[:, None] - positions[None]).pow(2).sum(-1)
    local = (1 / (apart + 1)).sum(1) * cell.prod()
    return {"energy": local.sum(), "local": local, "moment": positions.sin() * cell}


def energy(positions: Tensor, cell: Tensor) -> Tensor:
    return energies(positions, cell)["energy"] + positions.sin().prod() * cell.sum()


def flat(function: Callable[..., Any]) -> Callable[[Tensor], Tensor]:
    def call(x: Tensor) -> Tensor:
        value = function(x[: 3 * ATOMS].reshape(ATOMS, 3), x[3 * ATOMS :])
        return torch.cat([y.reshape(-1) for y in value.values()])

    return call


X = torch.cat([POSITIONS.reshape(-1), CELL])
JACOBIAN = jacrev(flat(energies))(X).numpy()
HESSIAN = hessian(lambda x: energy(x[: 3 * ATOMS].reshape(ATOMS, 3), x[3 * ATOMS :]))(X).numpy()
ATOMS_0_2 = {"of": "positions", "index": [0, 2]}
N_0_2 = [0, 1, 2, 6, 7, 8]


@pytest.fixture
def compute(tmp_path: Path) -> Callable[..., Result]:
    def run(op: str, **options: Any) -> Result:
        function = energy if op == "hessian" else energies
        options = {"runs": tmp_path, **options}
        result = jobs.compute(op, function, POINT, **options)
        assert isinstance(result, Result)
        return result

    return run


SELECTIONS = [
    # op, rows, columns, their numbers
    ("jacobian", {"tensor": "energy"}, ATOMS_0_2, [0], N_0_2),
    ("jacobian", {"tensor": ["energy", "moment"]}, None, [0, *range(5, 17)], range(15)),
    ("jacobian", "0:2,4", slice(3, 14), [0, 1, 4], range(3, 14)),
    ("jacobian", None, [14], range(17), [14]),
    ("hessian", ATOMS_0_2, ATOMS_0_2, N_0_2, N_0_2),
    ("hessian", None, ATOMS_0_2, range(15), N_0_2),
    ("hessian", np.array([1, 2, 13]), None, [1, 2, 13], range(15)),
    ("hessian", range(5), {"tensor": "cell"}, range(5), range(12, 15)),
    ("hessian", [0, 1], [2, 3], [0, 1], [2, 3]),
]


@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode"])
@pytest.mark.parametrize(("op", "rows", "columns", "numbers", "others"), SELECTIONS)
def test_a_part_has_the_entries_of_the_whole_matrix(
    compute: Callable[..., Result],
    strategy: str,
    op: str,
    rows: Any,
    columns: Any,
    numbers: Any,
    others: Any,
) -> None:
    whole = HESSIAN if op == "hessian" else JACOBIAN
    with compute(op, rows=rows, columns=columns, strategy=strategy) as result:
        np.testing.assert_allclose(
            result[...], whole[np.ix_(numbers, others)], rtol=1e-12, atol=1e-13
        )
        assert result.row_numbers.tolist() == [*numbers]
        assert result.column_numbers.tolist() == [*others]
        assert result.verdict.state is VerificationState.VERIFIED
        assert result.points["positions"].shape == (ATOMS, 3)
        assert result.value.keys() == ({"output"} if op == "hessian" else energies(**POINT).keys())
        # The user pays for the smaller side of a Hessian.
        if op == "hessian":
            assert result.execution["lines_computed"] == min(len(numbers), len(others))
        assert not verify_result(result.path).problems


def test_readers_name_the_lines(compute: Callable[..., Result], tmp_path: Path) -> None:
    with compute("jacobian", rows={"tensor": "moment"}, columns=ATOMS_0_2) as result:
        # Whole entries along the leading dimension keep the natural shape.
        assert result.block("moment", "positions").shape == (ATOMS, 3, 2, 3)
        dataset = result.as_xarray()
        picked = dataset["jacobian"].sel(row=5, column=[6, 7]).values
        np.testing.assert_allclose(picked, JACOBIAN[5, [6, 7]], rtol=1e-12)
        np.testing.assert_array_equal(dataset["column"], N_0_2)
        with pytest.raises(
            ResultError, match=r"as_torch\(\) needs the whole matrix.*6 of 15 columns"
        ):
            result.as_torch()
        assert "12 of 17 rows (5:17), 6 of 15 columns (0:3, 6:9)" in str(result.selection)


def test_a_selection_of_all_lines_is_no_other_job(compute: Callable[..., Result]) -> None:
    with (
        compute("jacobian") as plain,
        compute("jacobian", rows="0:17", columns=range(15)) as whole,
        compute("jacobian", rows="0:3") as part,
        compute("jacobian", rows=[0, 1, 2]) as same,
    ):
        assert plain.path == whole.path
        assert plain.selection is None
        assert part.path == same.path
        assert part.fingerprint != plain.fingerprint


def test_a_sample_is_that_of_its_seed(compute: Callable[..., Result]) -> None:
    with (
        compute("jacobian", rows={"sample": 5}, columns={"sample": 5}) as first,
        compute("jacobian", rows={"sample": 5}, columns={"sample": 5}, seed=1) as other,
    ):
        rows, columns = first.row_numbers, first.column_numbers
        assert len({*rows}) == len({*columns}) == 5
        np.testing.assert_allclose(first[...], JACOBIAN[np.ix_(rows, columns)], rtol=1e-12)
        assert rows.tolist() != other.row_numbers.tolist()
        # A permutation that is drawn by Philox with the key (seed, axis), whatever the version.
        bits = np.random.Philox(key=[0, 0])
        expected = np.sort(np.random.Generator(bits).choice(17, 5, replace=False))
        assert rows.tolist() == expected.tolist()


def test_shards_of_a_part_merge_into_it(compute: Callable[..., Result], tmp_path: Path) -> None:
    options: dict[str, Any] = {"strategy": "vectorize", "columns": ATOMS_0_2}
    shards = [compute("hessian", shard=f"{i}/2", **options) for i in (0, 1)]
    for virtual in (False, True):
        merge_shards([each.path for each in shards], tmp_path / f"{virtual}.h5", virtual=virtual)
        assert not verify_result(tmp_path / f"{virtual}.h5").problems
        with open_result(tmp_path / f"{virtual}.h5") as result:
            np.testing.assert_allclose(result[...], HESSIAN[:, N_0_2], rtol=1e-12, atol=1e-13)
            assert result.column_numbers.tolist() == N_0_2
    for each in shards:
        each.close()


def test_a_part_that_was_interrupted_is_resumed_bit_for_bit(
    compute: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"strategy": "forward-loop", "columns": ATOMS_0_2, "chunk_size": 1}
    with compute("hessian", runs=tmp_path / "whole", **options) as whole:
        expected = whole[...]
    block = LinesStream.block

    def failing(self: LinesStream, start: int, stop: int) -> Any:
        if start == 4 and [*tmp_path.rglob("*.part")]:
            raise KeyboardInterrupt
        return block(self, start, stop)

    with monkeypatch.context() as patched:
        patched.setattr(LinesStream, "block", failing)
        with pytest.raises(KeyboardInterrupt):
            compute("hessian", **options)
    with compute("hessian", **options) as result:
        assert result.execution["lines_resumed"] == 4
        np.testing.assert_array_equal(result[...], expected)


def test_results_of_other_lines_are_not_compared(compute: Callable[..., Result]) -> None:
    with (
        compute("jacobian", rows=3) as first,
        compute("jacobian", rows=4) as second,
        pytest.raises(ResultError, match="other rows or columns"),
    ):
        compare_results(first, second)


def test_many_points_have_selected_rows(tmp_path: Path) -> None:
    points = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)
    function = lambda x: torch.stack([x.sin(), x.cos()])  # noqa: E731
    with jobs.compute(
        "jacobian", function, points, points="leading", rows=[1, 6], runs=tmp_path
    ) as r:
        whole = np.stack([jacrev(function)(x).reshape(8, 4).numpy() for x in points])
        assert isinstance(r, Result)
        assert r.shape == (3, 2, 4)
        assert r.value["output"].shape == (3, 2, 4)
        np.testing.assert_allclose(r[...], whole[:, [1, 6]], rtol=1e-12)


def test_a_loss_in_batches_has_selected_parameters(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2).double()
    data = {"input": torch.rand(5, 3).double(), "label": torch.rand(5, 2).double()}
    options: dict[str, Any] = {
        "wrt": "params",
        "loss": {"kind": "mse", "batch_size": 2, "label": "label"},
        "runs": tmp_path,
    }
    with (
        jobs.compute("hessian", module, data, columns={"tensor": "bias"}, **options) as part,
        jobs.compute("hessian", module, data, **options) as whole,
    ):
        assert isinstance(part, Result)
        assert isinstance(whole, Result)
        np.testing.assert_allclose(part[...], whole[:, 6:8], rtol=1e-12, atol=1e-15)
        assert part.verdict.state is VerificationState.VERIFIED


@pytest.mark.parametrize("given", ["detected", "of a file", "coloured"])
def test_a_sparse_part_has_the_rows_of_the_pattern(tmp_path: Path, given: str) -> None:
    x = torch.linspace(0.5, 1.5, 40, dtype=torch.float64)
    function = lambda x: (x[1:] - x[:-1] ** 2) * x[1:]  # noqa: E731
    whole = jacrev(function)(x).numpy()
    options: dict[str, Any] = {"rows": range(30), "columns": slice(5, 35), "runs": tmp_path}
    sparsity = "auto" if given == "detected" else str(tmp_path / "pattern.npz")
    if given != "detected":
        pattern = detect_sparsity(function, x, operation="jacobian")
        (pattern if given == "of a file" else colour(pattern)).save(sparsity)
    with jobs.compute("jacobian", function, x, sparsity=sparsity, **options) as result:
        assert isinstance(result, SparseResult)
        np.testing.assert_allclose(result.as_scipy().todense(), whole[0:30, 5:35], rtol=1e-12)
        assert result.row_numbers.tolist() == [*range(30)]
        assert result.verdict.state is VerificationState.VERIFIED


def test_a_file_of_unsigned_numbers_is_not_read_as_negative(
    compute: Callable[..., Result], tmp_path: Path
) -> None:
    np.save(tmp_path / "rows.npy", np.array([1, 2**63 + 1], np.uint64))
    with pytest.raises(ConfigurationError, match="npy: 9223372036854775809 is outside"):
        compute("jacobian", rows=str(tmp_path / "rows.npy"))


@pytest.mark.parametrize(
    ("op", "options", "message"),
    [
        ("jacobian", {"rows": "0:18"}, r"rows=0:18: this is outside; the matrix has 17 rows"),
        ("jacobian", {"columns": [3, 15]}, "columns=15: this is outside; .* 15 columns"),
        ("jacobian", {"rows": [3, 3]}, "3 is there twice"),
        ("jacobian", {"rows": "5,2"}, "2 follows 5"),
        ("jacobian", {"rows": [-1]}, "counted from 0"),
        ("jacobian", {"rows": "4:4"}, "no lines"),
        ("jacobian", {"rows": []}, "valid are numbers and ranges"),
        ("jacobian", {"rows": np.full(999, True)}, r"rows.lines=.{60} \.\.\.: valid are"),
        ("jacobian", {"rows": {"tensor": "enery"}}, "valid are energy, local, moment"),
        ("jacobian", {"rows": {"sample": 18}}, "the matrix has 17 rows"),
        ("jacobian", {"rows": {"sample": 3, "tensor": "energy"}}, "one of them alone"),
        ("jacobian", {"columns": {"of": "positions"}}, "columns.of= with columns.index="),
        ("jacobian", {"columns": {"of": "positions", "index": 4}}, r"4 entries along its leading"),
        ("jacobian", {"rows": {"of": "energy", "index": 0}}, "without a dimension"),
        ("jacobian", {"rows": {"lins": 3}}, "no option rows.lins"),
        ("jacobian", {"rows": "missing.npy"}, "no such file"),
        ("jacobian", {"rows": 3, "output": {"tile": [1, 1]}}, "the tile of a part"),
        ("hvp", {"columns": 3}, "one row for each vector"),
        ("hessian", {"columns": 3, "sparsity": "auto"}, "go with real dtypes"),
        ("hessian", {"columns": 3, "verify": "sample"}, "verify=probe or off"),
    ],
)  # fmt: skip
def test_a_selection_that_does_not_fit_is_refused(
    compute: Callable[..., Result], tmp_path: Path, op: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        compute(op, **options)
    assert not [*tmp_path.rglob("*.h5*")]
