"""Status files and records of any content: one line each, and never in the way of the others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from jobs import status
from jobs.paths import RESULT, STATUS
from jobs.records.status_file import JobStatus
from jobs.report import main as report_main

SOUND = {
    "state": "running",
    "host": "elsewhere",
    "pid": 7,
    "lines": 200,
    "lines_done": 50,
    "axis": "rows",
}
NOT_A_STATUS = {
    "empty": b"",
    "not JSON": b"{'state': 1}",
    "cut": b'{"state": "run',
    "not text": b"\xff\xfe\xfa",
    "a list": b"[1, 2]",
    "infinity": b"1e999",
    "null": b"null",
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a number of many digits": b'{"lines": ' + b"9" * 5000 + b"}",
    "huge": b'{"message": "' + b"x" * 2**21 + b'"}',
    "zeros": bytes(100),
}
WRONG_FACTS: dict[str, Any] = {
    "state": [None, 7, ["running"], "exploded", {"a": 1}],
    "pid": [-1, 2**70, "7", 1.5, True, [7]],
    "lines": ["many", -1, float("inf"), float("nan"), 1e300, [200], 2**64],
    "lines_done": [{}, "x", -5],
    "lines_per_second": ["fast", float("inf"), float("nan"), [], -1],
    "seconds_left": ["soon", float("inf"), 10**400, {}],
    "seconds": [float("nan"), "1"],
    "message": [["a"], 5, {"b": 1}],
    "host": [3, ["a"]],
    "device": [{}, 0],
    "updated": [5, ["now"]],
    "directory": ["/etc"],
    "other": [{"a": 1}],
}
# What is no error: odd, but of the right types.
ODD: list[dict[str, Any]] = [
    {"updated": "0001-01-01T00:00:00+23:59"},
    {"updated": "9999-12-31T23:59:59-23:59"},
    {"updated": "\x1b[2J"},
    {"lines": 0, "lines_done": 5},
    {"message": "\x1b]0;owned\x07\x1b[2K\rfinished \u202e \ud800 $\\frac{a$"},
    {"host": "\x9b31m", "pid": 2**40},
    {"shape": [{"a": [1] * 50}, "x"], "dtype": {"b": 2}, "chunk_size": float("inf")},
    {"shape": [10**400, 2], "peak_memory_bytes": 10**400},
    {"chunk_size": [[[]]], "peak_memory_bytes": "much", "verification": {"a": float("nan")}},
]


def write(directory: Path, name: str, content: bytes) -> None:
    (directory / name).mkdir()
    (directory / name / STATUS).write_bytes(content)


def lines_of(out: str, name: str) -> list[str]:
    return [line for line in out.splitlines() if f" {name} " in line]


def test_every_hostile_status_is_one_line_among_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = dict(NOT_A_STATUS)
    for fact, values in WRONG_FACTS.items():
        for number, value in enumerate(values):
            if (fact, value) != ("state", None):
                contents[f"{fact}-{number}"] = json.dumps(SOUND | {fact: value}).encode()
    for name, content in contents.items():
        write(tmp_path, f"bad {name}", content)
    for number, facts in enumerate(ODD):
        write(tmp_path, f"odd {number}", json.dumps(SOUND | facts).encode())
    write(tmp_path, "sound", json.dumps(SOUND).encode())
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / STATUS)
    (tmp_path / "folder" / STATUS).mkdir(parents=True)
    (tmp_path / "loop").mkdir()
    (tmp_path / "loop" / STATUS).symlink_to(tmp_path / "loop" / STATUS)
    (tmp_path / "endless").mkdir()
    (tmp_path / "endless" / STATUS).symlink_to("/dev/zero")
    bad = [*(f"bad {name}" for name in contents), "pipe", "folder", "endless"]
    assert len(bad) > 50
    for main in (status.main, report_main):
        assert main([str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert not {"\x1b", "\x9b", "\r", "\x07", "\u202e"} & set(out)
        assert " running " in lines_of(out, "sound")[0]
        for name in bad:
            (line,) = lines_of(out, name)
            assert "unreadable" in line
            assert "status.json: " in line
        for number in range(len(ODD)):
            assert lines_of(out, f"odd {number}")
        assert "its pid is invalid" in lines_of(out, "bad pid-0")[0]
    assert report_main([str(tmp_path), "--csv", str(tmp_path / "r.csv")]) == 0
    assert report_main([str(tmp_path), "--html", str(tmp_path / "r.html")]) == 0


def test_a_status_without_facts_is_sound(tmp_path: Path) -> None:
    write(tmp_path, "a", json.dumps(dict.fromkeys(SOUND)).encode())
    assert JobStatus.read(tmp_path / "a" / STATUS).state_now() == ""


RECORDS = [
    b"{}",
    b"[1]",
    b"{",
    b'{"seconds": Infinity, "lines_computed": NaN}',
    b'{"seconds": 1' + b"0" * 400 + b', "peak_memory_bytes": 1e999, "chunk_size": -Infinity}',
    b'{"seconds": 1' + b"0" * 5000 + b"}",
    b'{"verification": [1], "fallbacks": 7, "device": {"a": [1]}}',
    b'{"verification": {"kind": {"a": 1}, "largest_relative_error": "x", "tolerance": []}}',
    b'{"verification": "off", "fallbacks": {"a": 1}, "chunk_size": "x", "seconds": true}',
    b'{"fallbacks": ["\\u001b[2J", 5, null], "device": "\\u001b]0;owned\\u0007"}',
    b"[" * 20000,
    b"\xff\xfe",
]


def test_every_record_of_a_result_is_one_line(
    tmp_path: Path, run_job: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Records whose digest fits are no less hostile: report reads them without comparing it."""
    options = ("op=hessian", "function=rosenbrock", "function.n=4", "verify='off'")
    path = run_job(*options).path
    whole = path.read_bytes()
    for number, record in enumerate(RECORDS):
        name = rf"$\frac{{a$ {number}"
        (tmp_path / "all" / name).mkdir(parents=True)
        copy = tmp_path / "all" / name / RESULT
        copy.write_bytes(whole)
        with h5py.File(copy, "r+", libver=("earliest", "v108")) as file:
            del file["execution"]
            file["execution"] = np.array(record)
    (tmp_path / "all" / "sound").mkdir()
    (tmp_path / "all" / "sound" / RESULT).write_bytes(whole)
    assert report_main([str(tmp_path / "all"), "--html", str(tmp_path / "r.html")]) == 0
    out = capsys.readouterr().out
    assert not {"\x1b", "\x07"} & set(out)
    for number in range(len(RECORDS)):
        assert any(f"a$ {number} " in line for line in out.splitlines())
    assert " finished " in lines_of(out, "sound")[0]
    assert "<svg" in (tmp_path / "r.html").read_text()
