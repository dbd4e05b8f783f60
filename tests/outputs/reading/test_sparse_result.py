"""Sparse results: write them, read parts of them, verify and show them."""

import copy
import pickle
import zlib
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse

from outputs import (
    Probes,
    ResultError,
    ResultExistsError,
    TensorSpec,
    compare_sparse_results,
    is_sparse_result,
    open_result,
    open_sparse_result,
    verify_result,
    write_sparse,
)
from outputs.plot import main as plot
from outputs.show import main as show
from outputs.verify import main as verify

ROWS, COLUMNS = 60, 45


@pytest.fixture
def matrix():
    return scipy.sparse.random_array(
        (ROWS, COLUMNS), density=0.1, format="csr", rng=np.random.default_rng(0)
    )


@pytest.fixture
def write(describe, tmp_path):
    def put(matrix, name="r.h5", probes=True, **changes):
        generator = np.random.default_rng(1)
        v, u = generator.standard_normal(COLUMNS), generator.standard_normal(ROWS)
        description = describe(
            matrix.shape,
            dtype=str(matrix.dtype),
            probes=Probes(
                right=v,
                right_product=matrix @ v,
                left=u,
                left_product=matrix.T @ u,
                tolerance=1e-8,
                pairing="bilinear",
                floor=0.0,
            )
            if probes
            else None,
            **changes,
        )
        write_sparse(
            tmp_path / name,
            description,
            matrix.indptr.astype(np.int64),
            matrix.indices,
            matrix.data.__getitem__,
            kind="column",
            colours={"column_colours": np.arange(COLUMNS, dtype=np.int32)},
            execution={
                "seconds": 1.5,
                "verification": {"state": "verified", "state_reason": "all agree"},
            },
        )
        return tmp_path / name

    return put


@pytest.fixture(params=[16, 2**20], autouse=True)
def _piece(request, monkeypatch):
    monkeypatch.setattr("outputs._reading.sparse_result.PIECE", request.param)
    monkeypatch.setattr("outputs._writing.sparse_writer.PIECE", request.param)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_written_values_are_read_back(write, matrix, dtype, compression):
    path = write(matrix.astype(dtype), compression=compression)
    assert is_sparse_result(path)
    with open_sparse_result(path) as result:
        assert (result.shape, result.dtype, result.entries) == (matrix.shape, dtype, matrix.nnz)
        found = result.as_scipy()
        assert np.array_equal(found.toarray(), matrix.astype(dtype).toarray())
        assert np.array_equal(result.as_torch().to_dense().numpy(), found.toarray())
        assert np.array_equal(result.row_range(7, 31).toarray(), found.toarray()[7:31])
        assert result.row_range(5, 5).shape == (0, COLUMNS)
        parts = [rows.toarray() for _, rows in result.ranges()]
        assert np.array_equal(np.concatenate(parts), found.toarray())
        operator: Any = result.as_linear_operator()
        v, u = np.ones(COLUMNS), np.ones((ROWS, 2))
        assert np.allclose(operator @ v, matrix @ v, rtol=1e-6)
        assert np.allclose(operator.T @ u, matrix.T @ u, rtol=1e-6)
        assert result.kind == "column"
        assert np.array_equal(result.colours["column_colours"], np.arange(COLUMNS))
        assert result.execution["seconds"] == 1.5
        assert list(result.points) == ["x"]
        assert f"{matrix.nnz} entries" in repr(result)
        with pytest.raises(ResultError, match="60 rows; 50:61 are not among them"):
            result.row_range(50, 61)
    with pytest.raises(ResultError, match="closed"):
        result.as_scipy()


def test_other_readers_know_the_layout(write, matrix):
    with h5py.File(write(matrix)) as file:
        group: Any = file["jacobian"]
        assert dict(group.attrs)["encoding-type"] in (b"csr_matrix", "csr_matrix")
        assert dict(group.attrs)["encoding-version"] in (b"0.1.0", "0.1.0")
        parts = [group[name][()] for name in ("data", "indices", "indptr")]
        found = scipy.sparse.csr_matrix(tuple(parts), shape=tuple(group.attrs["shape"]))
        assert np.array_equal(found.toarray(), matrix.toarray())


def test_an_empty_matrix(write):
    path = write(scipy.sparse.csr_array((ROWS, COLUMNS)))
    assert verify_result(path).ok
    with open_sparse_result(path) as result:
        assert result.as_scipy().nnz == 0


@pytest.mark.parametrize("name", ["data", "indices", "indptr"])
def test_a_damaged_byte_is_found(write, matrix, name):
    path = write(matrix)
    with h5py.File(path, "r+") as file:
        numbers = file[f"jacobian/{name}"]
        numbers[20] = numbers[20] + 1  # pyright: ignore[reportIndexIssue, reportOperatorIssue]
    report = verify_result(path)
    assert not report.ok
    assert f"{name} " in report.problems[0]
    assert verify([str(path)]) == 1


def test_an_entry_that_was_wrong_when_written_fails_the_probes(write, matrix, describe, tmp_path):
    assert verify_result(write(matrix)).ok
    v = np.random.default_rng(1).standard_normal(COLUMNS)
    probes = Probes(
        right=v,
        right_product=matrix @ v,
        left=None,
        left_product=None,
        tolerance=1e-8,
        pairing="bilinear",
        floor=0.0,
    )
    matrix.data[17] *= -1
    write_sparse(
        tmp_path / "wrong.h5",
        describe(matrix.shape, probes=probes),
        matrix.indptr.astype(np.int64),
        matrix.indices,
        matrix.data.__getitem__,
        kind="row",
        colours={},
        execution={},
    )
    report = verify_result(tmp_path / "wrong.h5")
    assert "1 of 60 rows do not multiply with the right probe" in report.problems[0]


def test_indices_in_disorder_are_found(write, matrix):
    matrix.indices[matrix.indptr[3] : matrix.indptr[4]] = matrix.indices[
        matrix.indptr[3] : matrix.indptr[4]
    ][::-1]
    assert "not those of compressed rows" in verify_result(write(matrix)).problems[0]


def test_an_existing_file_is_not_overwritten_and_no_scratch_file_remains(write, matrix, tmp_path):
    before = write(matrix).read_bytes()
    with pytest.raises(ResultExistsError):
        write(matrix)
    assert (tmp_path / "r.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["r.h5"]


def test_dense_readers_name_the_sparse_reader(write, matrix, describe, tmp_path):
    with pytest.raises(ResultError, match="open_sparse_result"):
        open_result(write(matrix))
    with pytest.raises(ResultError, match="There is no file"):
        open_sparse_result(tmp_path / "none.h5")
    assert not is_sparse_result(tmp_path / "none.h5")


def test_two_results_are_compared(write, matrix):
    other = matrix.copy()
    other.data[5] *= 1 + 1e-3
    with open_sparse_result(write(matrix)) as a, open_sparse_result(write(other, "b.h5")) as b:
        same = compare_sparse_results(a, a)
        found = compare_sparse_results(a, b)
    assert (same.largest, same.place) == (0, None)
    row = int(np.searchsorted(matrix.indptr, 5, side="right")) - 1
    assert found.place == (row, matrix.indices[5])
    assert found.relative == pytest.approx(abs(matrix.data[5]) * 1e-3 / matrix.data.max(), rel=0.1)


def test_it_is_shown_and_drawn(write, matrix, capsys, tmp_path):
    path = write(matrix, columns=(TensorSpec("weights", (COLUMNS,), "float64"),))
    assert show([str(path)]) == 0
    shown = capsys.readouterr().out
    assert "60 x 45" in shown
    assert "weights" in shown
    assert any(0x2801 <= ord(character) < 0x2900 for character in shown)
    assert plot([str(path), "-o", str(tmp_path / "p.png")]) == 0
    image = pytest.importorskip("matplotlib.image").imread(tmp_path / "p.png")
    assert min(image.shape[:2]) > 200
    assert verify([str(path)]) == 0
    assert "60 x 45" in capsys.readouterr().out


HOSTILE_INDICES = {
    "a column of 2^31 - 1": ("indices", 7, 2**31 - 1),
    "a column one too large": ("indices", 7, COLUMNS),
    "a negative column": ("indices", 0, -1),
    "the last column too large": ("indices", -1, COLUMNS),
    "an offset of 2^62": ("indptr", 9, 2**62),
    "a negative offset": ("indptr", 9, -(2**40)),
    "a first offset that is not 0": ("indptr", 0, 1),
    "a last offset beyond the entries": ("indptr", -1, 10**6),
    "a last offset before the entries": ("indptr", -1, 200),
}


@pytest.mark.parametrize("name", HOSTILE_INDICES)
@pytest.mark.parametrize("unsigned", [False, True])
def test_indices_with_sound_checksums_are_not_believed(write, matrix, capsys, name, unsigned):
    """SciPy would read and write outside of its memory: each entry point refuses before it."""
    array, at, value = HOSTILE_INDICES[name]
    matrix = matrix.copy()
    path = write(matrix)
    arrays = {"indptr": matrix.indptr.astype(np.int64), "indices": matrix.indices}
    arrays[array][at] = value
    numbers = arrays[array].astype(f"u{arrays[array].itemsize}") if unsigned else arrays[array]
    with h5py.File(path, "r+") as file:
        del file[f"jacobian/{array}"]
        file[f"jacobian/{array}"] = numbers
        table: Any = file["checksums"]
        checksums = table[()]
        number = ["data", "indices", "indptr"].index(array)
        for row in checksums[checksums["array"] == number]:
            part = np.ascontiguousarray(numbers[int(row["start"]) : int(row["stop"])])
            row["crc32"] = zlib.crc32(part.tobytes())
            same = (checksums["array"] == number) & (checksums["start"] == row["start"])
            checksums["crc32"][same] = row["crc32"]
        table[...] = checksums
    readers: list[Any] = [
        lambda r: r.as_scipy(),
        lambda r: r.as_torch(),
        lambda r: r.pattern,
        lambda r: list(r.ranges()),
        lambda r: r.as_linear_operator() @ np.ones(COLUMNS),
        lambda r: r.as_linear_operator().T @ np.ones(ROWS),
    ]
    with open_sparse_result(path) as result:
        for read in readers:
            with pytest.raises(ResultError, match="not those of compressed rows"):
                read(result)
    assert "not those of compressed rows" in " ".join(verify_result(path).problems)
    assert show([str(path)]) == 1
    assert plot([str(path), "-o", str(path.with_suffix(".png"))]) == 1
    assert "compressed rows" in capsys.readouterr().err


@pytest.mark.parametrize(
    "colours",
    [
        np.full(COLUMNS, 2**31 - 1, np.int32),
        np.full(COLUMNS, -2, np.int32),
        np.zeros(COLUMNS + 1, np.int32),
        np.zeros(COLUMNS),
    ],
)
def test_colours_that_do_not_fit_are_refused(write, matrix, colours):
    path = write(matrix)
    with h5py.File(path, "r+") as file:
        del file["colouring/column_colours"]
        file["colouring/column_colours"] = colours
    with open_sparse_result(path) as result, pytest.raises(ResultError, match="its colours do not"):
        _ = result.colours
    assert "colours" in verify_result(path).problems[0]


def test_copies_open_the_file_again(write, matrix):
    with open_sparse_result(write(matrix)) as result:
        for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
            assert (other.as_scipy() != matrix).nnz == 0
            other.close()


def test_it_does_not_become_a_dense_array_unasked(write, matrix):
    with open_sparse_result(write(matrix)) as result:
        with pytest.raises(TypeError, match=r"as_scipy\(\).toarray\(\)"):
            np.asarray(result)
        np.testing.assert_array_equal(result.as_scipy().toarray(), matrix.toarray())
