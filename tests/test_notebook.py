"""The notebook of examples/, executed by a real kernel of Jupyter."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples/hessian.ipynb"
# In a process of its own: the libraries of Jupyter warn of what pytest would make an error.
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], 4)
resources = {"metadata": {"path": "."}}
NotebookClient(notebook, timeout=240, kernel_name="python3", resources=resources).execute()
nbformat.write(notebook, "executed.ipynb")
"""


def cells(path: Path) -> list[dict[str, Any]]:
    return [each for each in json.loads(path.read_text())["cells"] if each["cell_type"] == "code"]


def test_it_is_stored_without_outputs() -> None:
    assert len(cells(NOTEBOOK)) > 8
    for cell in cells(NOTEBOOK):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)


def test_it_runs(tmp_path: Path) -> None:
    for needed in ("nbclient", "ipykernel", "matplotlib"):
        pytest.importorskip(needed, reason=f"{needed} runs notebooks; the extra `test` has it")
    command = [sys.executable, "-c", EXECUTE, str(NOTEBOOK)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    pages, pictures, printed, shown = [], [], "", []
    for cell in cells(tmp_path / "executed.ipynb"):
        for output in cell["outputs"]:
            assert output["output_type"] != "error", output
            assert output.get("name") != "stderr", output
            data = output.get("data", {})
            if output["output_type"] == "execute_result":
                pages += ["".join(data.get("text/html", ""))]
                pictures += [data[kind] for kind in data if kind == "image/png"]
                shown += ["".join(data["text/plain"])]
            printed += "".join(output.get("text", ""))
    # The plan, the result, its figure, the unfinished result, and the one that was not verified.
    assert len(shown) == 5
    assert "375 rows x 375 columns" in shown[0]
    states = [re.findall(r"<Result, ([\w ]+): hessian of energy", text) for text in shown]
    assert states == [[], ["verified"], [], ["not verified"], ["not verified"]]
    assert [text.count("NOT VERIFIED: ") for text in pages] == [0, 0, 0, 1, 1]
    assert [text.count("data:image/png;base64,") for text in pages] == [0, 1, 0, 1, 1]
    assert "not computed yet" in pages[3]
    assert len(pictures) == 1
    # What is known of any such function, and of the same matrix computed in two runs.
    assert "zero eigenvalues: 3\n" in printed
    assert "interrupted: interrupted; what was computed is kept" in printed
    (rows,) = map(int, re.findall(r"rows of the first run: (\d+)", printed))
    assert 0 < rows < 375
    assert rows % 8 == 0
    for claim in ("sums", "the same matrix", "another directory", "twice the first"):
        assert f"{claim}: True\n" in printed
