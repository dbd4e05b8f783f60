"""Pictures: tests of the numbers that are drawn, and of the PNG that is written."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from outputs import ResultWriter, TensorSpec, open_result
from outputs._reading.presentation import spectrum as _spectrum
from outputs._reading.presentation.matrix_statistics import survey
from outputs._reading.presentation.spectrum import spectrum
from outputs.plot import main

ROOT = Path(__file__).parents[3]

MANY = tuple(
    TensorSpec(f"layer{i}.a_name_that_does_not_end", (i % 3 + 1,), "float64") for i in range(30)
)
FEW = tuple(TensorSpec(f"$x_{i}$", (size,), "float64") for i, size in enumerate((20, 1, 19)))


def write(path, describe, matrix, **changes):
    fields = {"dtype": str(matrix.dtype), **changes}
    with ResultWriter.create(path, describe(matrix.shape, **fields)) as writer:
        lines = matrix.shape[0 if fields.get("axis", "rows") == "rows" else 1]
        if lines:
            writer.write(0, lines, matrix)
        writer.finish({})
    return str(path)


def size_of_png(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


@pytest.mark.parametrize("tile", [None, (7, 5)])
@pytest.mark.parametrize("dtype", ["float64", "complex64", "int64"])
def test_a_survey_sees_every_entry(describe, entries, tmp_path, tile, dtype):
    matrix = entries((33, 20), dtype)
    matrix[4, 5] = 0
    path = write(tmp_path / "r.h5", describe, matrix, tile=tile)
    with open_result(path) as result:
        seen = survey(result, cells=10)
    size = abs(matrix).astype(float)
    cells = [np.arange(n) * 10 // n for n in size.shape]
    for i in range(10):
        for j in range(10):
            assert seen.magnitude[i, j] == size[cells[0] == i][:, cells[1] == j].max()
    np.testing.assert_allclose(seen.row_norms, np.linalg.norm(size, axis=1))
    np.testing.assert_allclose(seen.column_norms, np.linalg.norm(size, axis=0))
    assert (seen.nonfinite_entries, seen.zero_entries) == (0, (matrix == 0).sum())


def test_a_survey_counts_entries_that_are_not_finite(describe, entries, tmp_path):
    matrix = entries((12, 20), "float64")
    matrix[3, 4], matrix[5, 6] = np.nan, -np.inf
    with open_result(write(tmp_path / "r.h5", describe, matrix)) as result:
        seen = survey(result)
    assert seen.nonfinite_entries == 2
    assert np.argwhere(seen.nonfinite).tolist() == [[3, 4], [5, 6]]
    assert np.isfinite(seen.magnitude).all()
    assert np.isfinite(seen.row_norms).all()


@pytest.mark.parametrize("operation", ["hessian", "jacobian"])
def test_lanczos_agrees_with_the_dense_spectrum(
    describe, entries, tmp_path, monkeypatch, operation
):
    matrix = entries((150, 150), "float64")
    matrix = matrix + matrix.T + np.diag(np.linspace(-4, 5, 150) ** 3)
    with open_result(write(tmp_path / "r.h5", describe, matrix, operation=operation)) as result:
        dense = spectrum(result, 8)
        monkeypatch.setattr(_spectrum, "_DENSE_ENTRIES", 0)
        few = spectrum(result, 8)
    assert dense.method == "all 150"
    assert "by Lanczos" in few.method
    if operation == "hessian":
        assert few.kind == "eigenvalues"
        expected = [*dense.values[:4], *dense.values[-4:]]
    else:
        assert few.kind == "singular values"
        expected = dense.values[:8]
    np.testing.assert_allclose(few.values, expected, rtol=0.02)


def test_lanczos_reports_that_it_did_not_converge(describe, entries, tmp_path, monkeypatch):
    monkeypatch.setattr(_spectrum, "_DENSE_ENTRIES", 0)
    monkeypatch.setattr(_spectrum, "_RESTARTS", 1)
    monkeypatch.setattr(_spectrum, "_VECTORS", 1)
    with open_result(write(tmp_path / "r.h5", describe, entries((150, 90), "float64"))) as result:
        assert "not converged" in spectrum(result, 8).method


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((40, 30), {}),
        ((40, 40), {"operation": "hessian", "rows": FEW, "columns": FEW}),
        ((60, 60), {"operation": "hessian", "axis": "columns", "rows": MANY, "columns": MANY}),
        ((3, 2500), {"operation": "vjp", "dtype": "complex128"}),
        ((1, 1), {}),
        ((0, 20), {}),
    ],
)
def test_pictures_are_drawn(describe, entries, tmp_path, capsys, shape, changes):
    matrix = entries(shape, changes.get("dtype", "float64"))
    path = write(tmp_path / "r.h5", describe, matrix, function="m:[a]$b$" * 9, **changes)
    assert main([path]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'r.png'}\n"
    width, height = size_of_png(tmp_path / "r.png")
    assert width > 900
    assert height > 700


@pytest.mark.parametrize("matrix", [np.zeros((4, 5)), np.full((4, 5), np.nan), np.ones((4, 5))])
def test_constant_matrices_are_drawn(describe, tmp_path, matrix):
    path = write(tmp_path / "r.h5", describe, matrix)
    assert main([path, "-o", str(tmp_path / "again.png")]) == 0
    assert main([path, "-o", str(tmp_path / "again.png"), "--values", "0"]) == 0
    size_of_png(tmp_path / "again.png")
    assert {entry.name for entry in tmp_path.iterdir()} == {"r.h5", "again.png"}


def test_mistakes_are_reported_in_one_sentence(describe, tmp_path, capsys, monkeypatch):
    path = write(tmp_path / "r.h5", describe, np.ones((12, 20)))
    for arguments, sentence in (
        ([str(tmp_path / "no.h5")], "There is no file"),
        ([path, "-o", str(tmp_path / "no" / "r.png")], "No such file or directory"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([path]) == 1
    assert "pip install 'autodiff-jobs[plot]'" in capsys.readouterr().err


def test_the_command_needs_no_display(describe, tmp_path):
    path = write(tmp_path / "r.h5", describe, np.ones((12, 20)))
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-m", "outputs.plot", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == f"{tmp_path / 'r.png'}\n"
    assert answer.stderr == ""
