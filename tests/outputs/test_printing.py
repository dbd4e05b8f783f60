"""Text from files reaches a terminal only with its control characters made visible."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import h5py
import numpy as np
import pytest

from outputs import (
    MissingDependencyError,
    ResultError,
    ResultWriter,
    TensorSpec,
    TruncatedResultError,
    printable,
)
from outputs._commands import SafeConsole
from outputs.export import main as export
from outputs.merge import main as merge
from outputs.plot import main as plot
from outputs.show import main as show
from outputs.verify import main as verify

ROOT = Path(__file__).parents[2]
EVIL = "\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202e\u2066\x00\x08"


def is_safe(text: str) -> bool:
    kinds = {unicodedata.category(c) for c in text if c != "\n"}
    return not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@pytest.mark.parametrize(
    "text",
    ["plain", "ünïcode 雪 ∂y/∂x", "two\nlines", EVIL, "".join(map(chr, range(0x3000)))],
)
def test_what_is_printable_stays_and_the_rest_is_visible(text):
    shown = printable(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown if c != "\n")
    if is_safe(text):
        assert shown == text
    elif len(text) < 100:
        assert shown.encode().decode("unicode_escape").encode("utf-16", "surrogatepass") == (
            text.encode("utf-16", "surrogatepass")
        )


@pytest.fixture
def evil(describe, tmp_path):
    folder = tmp_path / "evil\x1b[31m\udcff"
    folder.mkdir()
    name = f"y{EVIL}"
    changes = {
        "rows": (TensorSpec(name, (12,), "float64"),),
        "point": {f"p{EVIL}": np.arange(3.0)},
        "value": {f"v{EVIL}": np.float64(1)},
        "provenance": {"host": f"h{EVIL}", "torch": EVIL, "created": EVIL},
        "function": f"f{EVIL}",
        "strategy": f"s{EVIL}",
        "configuration": EVIL,
    }
    with ResultWriter.create(folder / "r.h5", describe(**changes)) as writer:
        writer.write(0, 12, np.ones((12, 20)))
        writer.finish({"device": EVIL, f"k{EVIL}": [EVIL], "verification": {"kind": EVIL}})
    return folder / "r.h5"


def test_commands_show_no_escapes(evil, tmp_path, capfd):
    picture = str(tmp_path / "p.png")
    assert show([str(evil)]) == 0
    # Nothing in it is verified.
    assert verify([str(evil)]) == 4
    assert verify([str(evil), str(evil.parent / "missing\x1b[1m")]) == 1
    assert plot([str(evil), "-o", picture]) == 0
    assert export([str(evil), "--to", "npy"]) == 0
    assert export([str(evil), "--to", "npy"]) == 1
    assert merge([str(evil), "-o", str(tmp_path / "m.h5")]) == 1
    with h5py.File(evil, "r+", libver=("earliest", "v108")) as file:
        file.attrs["operation"] = np.bytes_(EVIL.encode())
    assert show([str(evil)]) == 1
    assert verify([str(evil)]) == 1
    found = capfd.readouterr()
    for text in (found.out, found.err):
        assert len(text) > 100
        assert is_safe(text), [c for c in text if not is_safe(c)]


def test_a_console_keeps_its_own_colours():
    console = SafeConsole(force_terminal=True, color_system="standard", width=80, highlight=False)
    with console.capture() as captured:
        console.print("[red]red[/red] \x1b[2J")
    assert captured.get() == "\x1b[31mred\x1b[0m \\x1b[2J\n"


def test_messages_about_options_show_no_escapes(tmp_path):
    command = [sys.executable, "-m", "jobs.run", f"runs={tmp_path}", "op=\x1b[2Jhessian"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr
    assert is_safe(done.stderr)


def test_no_other_module_opens_a_console_or_prints_what_a_file_says():
    """Console() and print() write text as it is; only these modules call them."""
    allowed = {
        "Console": {"outputs/_commands.py", "jobs/reporting/console.py"},
        # What these print is their own text, JSON, or a figure of torch's installation.
        "print": {
            *("outputs/_commands.py", "jobs/printing.py", "outputs/verify.py", "outputs/merge.py"),
            *("jobs/run.py", "jobs/doctor.py", "jobs/machine/supervision.py"),
            *("outputs/_verification/isolated.py", "jobs/reporting/display.py"),
        },
    }
    for name, modules in allowed.items():
        call = re.compile(rf"(?<![\w.]){name}\(")
        callers = {
            str(path.relative_to(ROOT))
            for package in ("outputs", "jobs")
            for path in (ROOT / package).rglob("*.py")
            if call.search(re.sub(r"class \w+\(Console\)", "", path.read_text()))
        }
        assert callers <= modules


@pytest.mark.parametrize("kind", [ResultError, TruncatedResultError, MissingDependencyError])
def test_the_text_of_an_error_shows_no_escapes_wherever_it_is_printed(kind):
    """Such as the traceback of a notebook."""
    error = pickle.loads(pickle.dumps(kind("the name \x1b[2J\x07 is\nodd")))
    assert str(error) == "the name \\x1b[2J\\x07 is\nodd"
    assert is_safe(str(error))
