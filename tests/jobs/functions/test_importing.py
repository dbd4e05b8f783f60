"""Targets that do not exist, and modules that cannot be imported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import JobError
from jobs.job import Job
from tests.jobs.support.own_model import VALUES

Resolve = Callable[..., Job]


@pytest.mark.parametrize(
    ("target", "pattern"),
    [
        ("code/modle.py:energy", "there is no such file; looked for .*did you mean model.py"),
        ("code/model.py:enrgy", "there is no enrgy in .*model.py; did you mean energy"),
        ("code/model.py", "valid is an import path such as .* or a file such as"),
        ("code/model.py:point", "of type Tensor and cannot be called"),
        ("{stiffness: 3}", "a mapping needs _target_"),
        ("{_target_: code/model.py:missing}", "there is no missing"),
        ("{_target_: code/model.py:make}", "make.*missing 1 required positional argument"),
    ],
)
def test_a_target_that_does_not_exist_is_reported(
    target: str, pattern: str, model: Path, command_line: Any
) -> None:
    ended = command_line("op=jacobian", "function=python", f"function.target={target}", *VALUES)
    assert ended.code == 1
    assert ended.err.startswith("error: function.target=")
    import re

    assert re.search(pattern, ended.err), ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("source", "target", "pattern"),
    [
        ("", "nowhere:f", r"there is no module nowhere; looked in "),
        ("", "user.deeper:f", r"there is no module user.deeper"),
        ("", "user", r"function.target=user: valid is an import path such as"),
        ("", ":f", r"function.target=:f: valid is an import path"),
        ("raise ImportError('boom')", "user:f", r"importing user failed with ImportError: boom"),
        ("1 / 0", "user:f", r"importing user failed with ZeroDivisionError"),
        ("def f(:", "user:f", r"importing user failed with SyntaxError"),
        ("import not_installed", "user:f", r"user itself imports not_installed"),
        ("raise SystemExit(4)", "user:f", r"importing user failed with SystemExit: 4"),
    ],
)
def test_a_module_that_cannot_be_imported(
    source: str, target: str, pattern: str, directory: Path, resolved: Resolve
) -> None:
    (directory / "user.py").write_text(source)
    with pytest.raises(JobError, match=pattern):
        resolved("op=jacobian", "function=python", f"'function.target={target}'".strip("'"))
