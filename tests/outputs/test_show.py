import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from outputs import ResultWriter, TensorSpec
from outputs.show import main

ROOT = Path(__file__).parents[2]


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


def test_show_prints_the_contents_of_the_file(written, capsys):
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
        # As files of before the states have them.
        figures = {
            "kind": "probe",
            "lines_checked": 9,
            "largest_relative_error": 1.26e-16,
            "tolerance": 1e-8,
        }
        record = {"seconds": 0.002, "lines_computed": 10, "lines_resumed": 2}
        writer.finish(record | {"verification": figures})
    assert main([str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        "now, torch 2.13",
        "0.002 s for 10 rows: 100 k entries/s, 800 kB/s; 2 rows are of earlier runs",
        "partly verified: 9 of 12 rows agree with an independent product, largest relative error",
        "3 rows were not compared by the last run",
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


def test_show_reports_the_progress_of_an_unfinished_file(describe, tmp_path, capsys):
    with ResultWriter.create(tmp_path / "r.h5", describe()) as writer:
        writer.write(0, 5, np.ones((5, 20)))
        assert main([str(writer.part)]) == 0
    assert "5 of 12 rows are committed" in " ".join(capsys.readouterr().out.split())


def test_show_reports_a_mistake_in_one_sentence(tmp_path):
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
