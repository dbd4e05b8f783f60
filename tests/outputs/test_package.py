import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import outputs
from outputs import Axis, ResultWriter, TensorSpec
from outputs._format.tiling import tile_shape
from outputs.show import main

ROOT = Path(__file__).parents[2]

REPORT_IMPORTS = """
import sys
import outputs
heavy = {"torch", "rich", "hydra", "omegaconf", "jobs", "autodiff_core"}
heavy |= {"scipy", "xarray", "dask", "matplotlib", "zarr", "h5netcdf"}
print(outputs.__file__)
print(sorted(heavy & set(sys.modules)))
"""


def test_import_is_light_and_finds_this_package_beside_a_foreign_folder(tmp_path):
    (tmp_path / "outputs" / "2026-01-01").mkdir(parents=True)
    answer = subprocess.run(
        [sys.executable, "-c", REPORT_IMPORTS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(["", str(ROOT), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        check=True,
    )
    place, heavy = answer.stdout.splitlines()
    assert Path(place) == ROOT / "outputs" / "__init__.py"
    assert heavy == "[]"


def test_the_package_under_test_is_this_one():
    assert Path(outputs.__file__) == ROOT / "outputs" / "__init__.py"


def test_every_public_name_exists():
    assert all(hasattr(outputs, name) for name in outputs.__all__)


@pytest.mark.parametrize("axis", ["rows", "columns"])
@pytest.mark.parametrize(
    "shape", [(1, 1), (100, 100), (1000, 10**6), (10**6, 1000), (16385, 4096), (3, 10**8)]
)
@pytest.mark.parametrize("itemsize", [4, 16])
def test_tiles_are_large_and_waste_little(shape, itemsize, axis):
    tile = tile_shape(shape, itemsize, axis)
    assert all(1 <= extent <= length for extent, length in zip(tile, shape, strict=True))
    size = tile[0] * tile[1] * itemsize
    whole = shape[0] * shape[1] * itemsize
    assert min(2**20, whole) * 0.9 <= size <= 4 * 2**20
    stored = np.prod([-(-n // t) * t for n, t in zip(shape, tile, strict=True)]) * itemsize
    assert stored <= 1.1 * whole + 2**21


@pytest.mark.parametrize("axis", list(Axis))
@pytest.mark.parametrize("block_lines", [1, 7, 16, 64, 200, 251, 1000, 4096])
@pytest.mark.parametrize("shape", [(1, 1), (100, 100), (5000, 10**6), (4097, 4096), (10**5, 10**7)])
def test_tiles_fit_to_blocks(shape, block_lines, axis):
    lines, across = shape
    tile = tile_shape(shape if axis is Axis.ROWS else shape[::-1], 4, axis, block_lines)
    high, wide = tile if axis is Axis.ROWS else tile[::-1]
    assert 1 <= high <= lines
    assert 1 <= wide <= across
    assert 4 * high * wide <= 4 * 2**20
    assert -(-lines // high) * -(-across // wide) <= max(2**17, 4 * lines * across // 2**20)
    block = min(block_lines, lines)
    assert high % block == 0 or block % high == 0 or high == lines or block == 251


@pytest.fixture
def written(describe, tmp_path):
    path = tmp_path / "r.h5"
    with ResultWriter.create(path, describe(function="m:[red]f")) as writer:
        writer.write(0, 12, np.ones((12, 20)))
        writer.finish(
            {
                "chunk_size": 12,
                "fallbacks": ["forward-mode refused"],
                "peak": {"device_bytes": 123},
                "block_seconds": [0.25] * 20,
                "verification": {"rows_relative_error": 1e-15},
            }
        )
    return path


def test_show_prints_what_the_file_holds(written, capsys):
    assert main([str(written)]) == 0
    shown = capsys.readouterr().out
    for text in (
        "complete", "jacobian", "m:[red]f", "12 x 20", "float64", "1.92 kB", "contiguous",
        "1 blocks of rows", "x (3,) float64", "0:12", "0:20", "2.13", "created", "chunk_size",
        "forward-mode refused", "peak.device_bytes", "20 entries", "rows_relative_error", "1e-15",
    ):  # fmt: skip
        assert text in shown


def test_show_says_when_how_long_and_how_fast(describe, tmp_path, capsys):
    path = tmp_path / "r.h5"
    with ResultWriter.create(path, describe()) as writer:
        writer.write(0, 12, np.ones((12, 20)))
        figures = {"kind": "probe", "largest_relative_error": 1.26e-16, "tolerance": 1e-8}
        record = {"seconds": 0.002, "lines_computed": 10, "lines_resumed": 2}
        writer.finish(record | {"verification": figures})
    assert main([str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        "now, torch 2.13",
        "0.002 s for 10 rows: 100 k entries/s, 800 kB/s; 2 rows are of earlier runs",
        "probe: largest relative error 1.3e-16, tolerance 1e-08",
    ):
        assert text in shown


def test_show_shortens_long_tables(describe, tmp_path, capsys):
    rows = tuple(TensorSpec(f"t{i}", (3,), "float64") for i in range(20))
    with ResultWriter.create(tmp_path / "r.h5", describe((60, 20), rows=rows)) as writer:
        part = str(writer.part)
    assert main([part]) == 0
    shown = capsys.readouterr().out
    assert "8 more, see --all" in shown
    assert "t9" in shown
    assert "57:60" in shown
    assert "t12" not in shown
    assert main([part, "--all"]) == 0
    assert "t12" in capsys.readouterr().out


def test_show_tells_how_far_an_unfinished_file_is(describe, tmp_path, capsys):
    with ResultWriter.create(tmp_path / "r.h5", describe()) as writer:
        writer.write(0, 5, np.ones((5, 20)))
        assert main([str(writer.part)]) == 0
    assert "5 of 12 rows are committed" in " ".join(capsys.readouterr().out.split())


def test_show_tells_a_mistake_in_one_sentence(tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    for name, sentence in (("none.h5", "There is no file"), ("text.h5", "is not an HDF5 file")):
        answer = subprocess.run(
            [sys.executable, "-m", "outputs.show", str(tmp_path / name)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert answer.returncode == 1
        assert answer.stdout == ""
        assert sentence in answer.stderr
        assert answer.stderr.count("\n") == 1
