import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from outputs import Probes, ResultError, ResultWriter, TensorSpec, open_result, verify_result
from outputs._scanning import parallel as passes
from outputs.verify import main

ROOT = Path(__file__).parents[3]
LIBVER = ("earliest", "v108")


VERIFIED = {"kind": "probe", "state": "verified", "state_reason": "all agree"}


def probes_of(matrix, pairing: Any = "bilinear", tolerance=1e-9, **changes):
    random = np.random.default_rng(1)
    rows, columns = matrix.shape
    left, right = random.standard_normal(rows), random.standard_normal(columns)
    if matrix.dtype.kind == "c":
        left = left + 1j * random.standard_normal(rows)
        right = right + 1j * random.standard_normal(columns)
    wide = matrix.astype(np.result_type(matrix, np.float64))
    if pairing == "bilinear":
        products = wide @ right, left @ wide
    else:
        products = (wide.conj() @ right).real, (left.conj() @ wide).real
    fields = {"right": right, "right_product": products[0], "left": left} | changes
    return Probes(**fields, left_product=products[1], tolerance=tolerance, pairing=pairing)


@pytest.fixture
def put(describe, write_all, tmp_path):
    def write(matrix, sizes=(5,), name="r.h5", recorded=VERIFIED, **changes):
        path = tmp_path / name
        changes = {"dtype": matrix.dtype.name, "probes": probes_of(matrix)} | changes
        description = describe(matrix.shape, **changes)
        with ResultWriter.create(path, description) as writer:
            write_all(writer, description.axis, matrix, list(sizes))
            writer.finish({"verification": recorded or {}})
        return path

    return write


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(passes, "_PIECE_BYTES", 700)
    monkeypatch.setattr(passes, "_LARGEST_PIECE_BYTES", 3000)
    monkeypatch.setattr("outputs._verification.dense._SLAB_BYTES", 128)


@pytest.mark.parametrize("pairing", ["bilinear", "real inner product"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(
    ("axis", "tile", "compression"),
    [
        ("rows", None, "none"),
        ("rows", (5, 7), "none"),
        ("rows", None, "gzip"),
        ("columns", None, "none"),
        ("columns", (5, 7), "gzip"),
    ],
)
@pytest.mark.usefixtures("small_pieces")
def test_sound_files(put, entries, axis, tile, compression, dtype, pairing):
    matrix = entries((37, 53), dtype)
    probes = probes_of(matrix, pairing)
    path = put(matrix, (5, 1, 9), axis=axis, tile=tile, compression=compression, probes=probes)
    found = verify_result(path)
    assert found.problems == ()
    assert found.ok
    assert (found.complete, found.shape, found.nonfinite) == (True, (37, 53), 0)
    assert found.lines_checked == 37 + 53
    assert found.right_error is not None
    assert found.left_error is not None
    assert max(found.right_error, found.left_error) < 1e-14


@pytest.mark.usefixtures("small_pieces")
def test_wide_rows_are_read_in_parts(put, entries):
    found = verify_result(put(entries((3, 2000), "float64"), (2,)))
    assert found.problems == ()
    assert found.bytes_read == 3 * 2000 * 8


@pytest.mark.parametrize("change", ["flip", "swap", "zero"])
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_wrong_entries_with_a_right_checksum_are_found(put, entries, axis, change):
    matrix = entries((40, 60), "float64")
    probes = probes_of(matrix)
    if change == "flip":
        matrix[17, 23] *= -1
    elif change == "swap":
        matrix[[3, 4]] = matrix[[4, 3]]
    else:
        matrix[8:16, 8:16] = 0
    found = verify_result(put(matrix, axis=axis, probes=probes))
    assert not found.ok
    assert found.corrupt == ()
    assert any("do not multiply with the right probe" in problem for problem in found.problems)
    assert any("do not multiply with the left probe" in problem for problem in found.problems)


@pytest.mark.parametrize(("axis", "block"), [("rows", (5, 10)), ("columns", (10, 15))])
def test_a_flipped_bit_on_the_disk_is_found(put, entries, axis, block):
    path = put(entries((20, 30), "float64"), axis=axis, probes=None)
    with h5py.File(path, "r+", libver=LIBVER) as file:
        values = file["jacobian"]
        assert isinstance(values, h5py.Dataset)
        values[7, 11] = np.nextafter(values[7, 11], 9)
    found = verify_result(path)
    assert found.corrupt == (block,)
    assert f"{block[0]}:{block[1]}" in found.problems[0]


def test_entries_that_are_not_finite_are_counted_and_their_lines_left_out(put, entries):
    matrix = entries((20, 30), "float64")
    matrix[3, 4], matrix[3, 5], matrix[9, 0] = np.nan, np.inf, -np.inf
    with np.errstate(invalid="ignore"):
        found = verify_result(put(matrix))
    assert (found.ok, found.nonfinite, found.lines_checked) == (True, 3, 18 + 27)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_entries_whose_squares_underflow_or_overflow(put, entries, scale):
    found = verify_result(put(entries((20, 30), "float64") * scale))
    assert (found.problems, found.nonfinite) == ((), 0)


def test_the_asymmetry_of_a_hessian(put, entries):
    matrix = entries((20, 20), "float64")
    matrix = matrix + matrix.T
    vector = np.random.default_rng(1).standard_normal(20)
    axes = {"rows": (TensorSpec("x", (20,), "float64"),)}
    for change, expected in ((0.0, 0.0), (1.0, 0.01)):
        matrix[3, 4] += change
        probes = Probes(vector, matrix @ vector, vector, vector @ matrix, 1e-9)
        name = f"{change}.h5"
        found = verify_result(put(matrix, operation="hessian", probes=probes, name=name, **axes))
        assert found.ok
        assert found.asymmetry is not None
        assert found.asymmetry >= expected
        assert found.asymmetry < 1e-14 or expected


def test_unfinished_results_are_not_sound(describe, tmp_path):
    with ResultWriter.create(tmp_path / "r.h5", describe()) as writer:
        writer.write(0, 5, np.ones((5, 20)))
    found = verify_result(writer.part)
    assert not found.complete
    assert "5 of 12 rows are committed" in found.problems[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"right": None}, "together"),
        ({"right": np.ones(3)}, "20 x 30 needs 30"),
        ({"right": np.ones((30, 1))}, "vector"),
        ({"right": np.ones(30, int)}, "floating-point"),
        ({"tolerance": float("nan")}, "tolerance"),
        ({"pairing": "sesquilinear"}, "pairing"),
    ],
)
def test_probes_that_contradict_themselves(describe, entries, change, message):
    probes = probes_of(entries((20, 30), "float64"))
    with pytest.raises(ResultError, match=message):
        describe((20, 30), probes=replace(probes, **change))


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_probes_are_read_back(put, entries, compression):
    matrix = entries((20, 30), "complex128")
    probes = probes_of(matrix, "real inner product")
    with open_result(put(matrix, probes=probes, compression=compression)) as result:
        found = result.probes
    assert found is not None
    assert (found.tolerance, found.pairing) == (probes.tolerance, probes.pairing)
    for name, array in probes.arrays().items():
        assert np.array_equal(found.arrays()[name], array)


def test_the_command_reports_its_findings(put, entries, tmp_path, capsys):
    matrix = entries((20, 30), "float64")
    put(matrix, name="a.h5")
    (tmp_path / "deep").mkdir()
    put(matrix, name="deep/b.h5")
    assert main([str(tmp_path / "a.h5")]) == 0
    assert "verified: all agree" in capsys.readouterr().out
    assert main([str(tmp_path), str(tmp_path / "*.h5")]) == 0
    assert capsys.readouterr().out.count(" verified ") == 2
    (tmp_path / "c.h5").write_text("no HDF5")
    assert main(["--json", str(tmp_path)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["ok"] for one in found] == [True, False, True]
    assert main([str(tmp_path / "none*.h5")]) == 1
    assert "There is no result" in capsys.readouterr().err


def test_the_module_runs_from_anywhere(put, entries, tmp_path):
    path = put(entries((20, 30), "float64"))
    done = subprocess.run(
        [sys.executable, "-m", "outputs.verify", "--json", path.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["ok"]
