"""Calls in the cells of a real kernel of Jupyter, which all of these tests share."""

import json
from collections.abc import Iterator

import pytest

pytest.importorskip("jupyter_client", reason="the extra `test` has it")
pytest.importorskip("ipykernel", reason="the extra `test` has it")

from tests.jobs.calls.kernels import Cell, Kernel, running_kernel
from tests.jobs.support.slow_function import SLOW

pytestmark = pytest.mark.xdist_group("notebook")

FIRST = f"""
import time, torch, jobs

SECONDS = 0.05
{SLOW}
def diagonal(function, **options):
    options = {{"strategy": "reverse-loop", "progress": "quiet", **options}}
    with jobs.compute("jacobian", function, torch.arange(4.0), **options) as result:
        return result.path.parent.name, result[...].diagonal().tolist()
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with running_kernel(tmp_path_factory.mktemp("notebook")) as kernel:
        assert not kernel.run(FIRST).error
        yield kernel


def seen(cell: Cell) -> tuple[str, list[float]]:
    """Return what `diagonal` has found."""
    assert not cell.error, cell.error
    name, found = json.loads(cell.value.replace("(", "[").replace(")", "]").replace("'", '"'))
    return name, found


def test_the_stop_button_ends_the_call_and_the_same_cell_resumes(kernel: Kernel) -> None:
    code = """jobs.compute("jacobian", lambda x: Slow.apply(x), torch.arange(30.0),
                           strategy="reverse-loop", chunk_size=1, verify="off")"""
    stopped = kernel.run(code, interrupt_after=lambda cell: cell.updates >= 1)
    # One line in place of a traceback.
    (line,) = stopped.error
    assert "KeyboardInterrupt: interrupted; what was computed is kept" in line
    finished = kernel.run(code)
    assert finished.value.startswith("<Result, not verified: jacobian of lambda: 30 x 30")
    facts = kernel.run("(_.execution['lines_resumed'], float(abs(_[...]).sum()))").value
    resumed, total = json.loads(facts.replace("(", "[").replace(")", "]"))
    assert 0 < resumed < 30
    assert total == 30 * 29
    # Plan, bar, outcome, path, value: the bar is one output, which is replaced.
    assert finished.outputs == 5
    assert finished.updates >= 2
    assert "30 of 30 rows (100 %)" in finished.text or f"{30 - resumed} of" in finished.text
    assert finished.html.count("<progress") == finished.updates + 1
    assert "NOT VERIFIED" in finished.html


def test_a_function_that_a_later_cell_redefines_is_another_job(kernel: Kernel) -> None:
    cells = {power: f"def function(x): return x**{power} / {power}" for power in (2, 3)}
    found = {}
    for power, definition in cells.items():
        kernel.run(definition)
        found[power] = seen(kernel.run("diagonal(function)"))
        assert found[power][1] == [float(n ** (power - 1)) for n in range(4)]
    assert found[2][0] != found[3][0]
    # The first result is still there, and belongs to the first function.
    kernel.run(cells[2])
    assert "finished already" in kernel.run("diagonal(function, progress='lines')").text
    assert seen(kernel.run("diagonal(function)")) == found[2]


def test_the_report_of_a_notebook_is_a_table(kernel: Kernel) -> None:
    kernel.run("diagonal(torch.sin)")
    shown = kernel.run("jobs.report('runs')")
    assert "<table" in shown.html
    assert "sin-jacobian-reverse-loop" in shown.text
    names = kernel.run(
        "sorted(set(jobs.report('runs').state) | {run.state for run in jobs.find()})"
    )
    assert names.value == "['finished']"


def test_a_module_that_autoreload_loads_again_is_another_job(kernel: Kernel) -> None:
    kernel.run("%load_ext autoreload\n%autoreload 2\nfrom pathlib import Path")
    found = []
    for scale in (2, 5):
        # Another length, because the time of a file may be coarse.
        text = f"SCALE = {scale}.0\ndef inner(x): return SCALE * x{' ' * scale}\n"
        text += "def outer(x): return inner(x)\n"
        kernel.run(f"Path('mine.py').write_text({text!r})")
        kernel.run("import mine\nfrom mine import outer")
        found.append(seen(kernel.run("diagonal(lambda x: outer(x) + mine.inner(x))")))
    assert [each for _, each in found] == [[4.0] * 4, [10.0] * 4]
    assert found[0][0] != found[1][0]


def test_run_finds_the_run_of_the_same_code_in_a_cell(kernel: Kernel) -> None:
    code = "import torch, jobs\ndef cube(x): return x**3\n"
    call = (
        "r = jobs.compute('jacobian', cube, torch.arange(3.0), progress='quiet')\nprint(r.path)\n"
    )
    kernel.run(f"Path('script.py').write_text({code + call!r})")
    first = kernel.run("%run script.py")
    assert "cube-jacobian-auto" in first.text
    assert kernel.run(code + call).text == first.text
