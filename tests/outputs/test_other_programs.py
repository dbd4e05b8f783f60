"""Programs other than Python read the matrix and the tables without this package."""

import re
import shutil
import subprocess

import numpy as np
import pytest

from outputs import ResultWriter, TensorSpec

needs_h5dump = pytest.mark.skipif(
    shutil.which("h5dump") is None, reason="h5dump is not installed (Debian: hdf5-tools)"
)
needs_octave = pytest.mark.skipif(
    shutil.which("octave-cli") is None, reason="octave-cli is not installed (Debian: octave)"
)

LAYOUTS = [
    {"axis": "rows"},
    {"axis": "columns", "tile": (5, 4)},
    {"axis": "rows", "tile": (4, 20), "compression": "gzip"},
]
ROWS = (TensorSpec("weight", (3, 2), "float64"), TensorSpec("bias", (6,), "float64"))


@pytest.fixture(params=LAYOUTS)
def written(request, describe, entries, tmp_path):
    def write(dtype="float64"):
        matrix = entries((12, 20), dtype)
        description = describe(matrix.shape, dtype=dtype, rows=ROWS, **request.param)
        with ResultWriter.create(tmp_path / "r.h5", description) as writer:
            writer.write(0, 12 if request.param["axis"] == "rows" else 20, matrix)
            writer.finish({"seconds": 1.5})
        return tmp_path / "r.h5", matrix

    return write


def h5dump(*arguments):
    answer = subprocess.run(
        ["h5dump", *map(str, arguments)], capture_output=True, text=True, check=True
    )
    assert answer.stderr == ""
    return answer.stdout


@needs_h5dump
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_h5dump_reads_the_matrix(written, tmp_path, dtype):
    path, matrix = written(dtype)
    h5dump("-d", "/jacobian", "-b", "LE", "-o", tmp_path / "raw", path)
    raw = np.fromfile(tmp_path / "raw", dtype)
    np.testing.assert_array_equal(raw.reshape(matrix.shape), matrix)


@needs_h5dump
def test_h5dump_reads_complex_numbers(written):
    path, matrix = written("complex128")
    text = h5dump("-d", "/jacobian", "-y", "-m", "%.17g", path)
    data = text[text.index("DATA {") : text.index("ATTRIBUTE")]
    numbers = np.array(re.findall(r"-?\d+\.?\d*(?:e[-+]\d+)?", data), dtype=float)
    np.testing.assert_array_equal(numbers.view(complex).reshape(matrix.shape), matrix)


@needs_h5dump
def test_h5dump_reads_tables_arrays_and_attributes(written):
    path, _ = written()
    table = h5dump("-d", "/rows", "-y", path)
    data = table[table.index("DATA {") : table.index("ATTRIBUTE")].replace("\\000", "")
    assert re.findall(r'"[^"]*"|\d+', data) == [
        *('"weight"', '"[3, 2]"', "0", "6", '"float64"'),
        *('"bias"', '"[6]"', "6", "12", '"float64"'),
    ]
    assert "0, 1, 2" in h5dump("-d", "/point/x", "-y", path)
    assert '"jacobian"' in h5dump("-a", "/operation", path)
    whole = h5dump("-H", path)
    for name in ("columns", "configuration", "execution", "ledger", "provenance", "value"):
        assert f'"{name}"' in whole


@needs_octave
def test_octave_reads_the_matrix(written, tmp_path):
    path, matrix = written()
    program = (
        f"x = load('-hdf5', '{path}', 'jacobian'); J = x.jacobian';"
        f"f = fopen('{tmp_path / 'raw'}', 'w'); fwrite(f, J', 'double'); fclose(f);"
        "printf('%d %d', size(J));"
    )
    answer = subprocess.run(
        ["octave-cli", "--norc", "--quiet", "--eval", program], capture_output=True, text=True
    )
    assert answer.stdout == "12 20", answer.stderr
    read = np.fromfile(tmp_path / "raw").reshape(matrix.shape)
    np.testing.assert_array_equal(read, matrix)
