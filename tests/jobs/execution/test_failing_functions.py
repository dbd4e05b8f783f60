"""Whatever a function raises, the command ends with one message and not with 0."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ODD = """
import sys
import torch

class Textless(Exception):
    def __str__(self): raise RuntimeError("there is no text")

class Base(BaseException):
    pass

def recursive(x): return recursive(x)
def textless(x): raise Textless()
def textless_runtime(x): raise type("Textless", (Textless, RuntimeError), {})()
def empty(x): raise ValueError
def several_lines(x): raise ValueError("first\\nsecond")
def base(x): raise Base("not an Exception")
def leaving(x): sys.exit(0)
def surrogate(x): raise ValueError("\\ud800 alone")
def pipe(x): raise BrokenPipeError(32, "Broken pipe")
def importing(x):
    import nowhere_to_be_found
def hungry(x): raise MemoryError
def interrupted(x): raise KeyboardInterrupt

def point(): return torch.ones(3)
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("recursive", "RecursionError: maximum recursion depth exceeded"),
        ("textless", "own:textless: Textless\n"),
        ("textless_runtime", "own:textless_runtime: Textless\n"),
        ("empty", "own:empty: ValueError\n"),
        ("several_lines", "ValueError: first\n"),
        ("base", "Base: not an Exception\n"),
        ("leaving", "SystemExit: 0\n"),
        ("surrogate", " alone\n"),
        ("pipe", "BrokenPipeError: [Errno 32] Broken pipe\n"),
        ("importing", "ModuleNotFoundError: No module named 'nowhere_to_be_found'\n"),
        ("hungry", "error: one row or column at a time needs more than"),
        ("interrupted", "interrupted; what was computed is kept"),
    ],
)
def test_an_exception_is_one_message(
    name: str,
    said: str,
    directory: Path,
    command_line: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The log belongs to the report of a test, which cannot hold what is no text.
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    (directory / "own.py").write_text(ODD)
    target = ("function=python", f"function.target=own:{name}", "function.point=own:point")
    ended = command_line("op=jacobian", *target)
    assert ended.code == (130 if name == "interrupted" else 1)
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert ended.err.count(str(directory / "own.py")) <= 1
