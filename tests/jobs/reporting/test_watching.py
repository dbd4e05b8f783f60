"""Watching jobs by their status files, and reports that compare finished jobs."""

import csv
import json
import os
import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from jobs import status
from jobs.records.status_file import JobStatus
from jobs.report import main as report_main
from outputs import ResultError, compare_results, open_result

RUNNING = {
    "state": "running",
    "host": "elsewhere",
    "pid": 7,
    "device": "cuda:0",
    "lines": 200,
    "lines_done": 50,
    "axis": "rows",
    "lines_per_second": 3.0,
    "seconds_left": 50.0,
    "something_new": [1],
}
MLP = ("op=jacobian", "function=mlp", "function.n=6")


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, **changes: Any) -> Path:
        path = tmp_path / name / "status.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        updated = datetime.now(UTC) - timedelta(hours=changes.pop("hours_ago", 0))
        path.write_text(json.dumps(RUNNING | {"updated": updated.isoformat()} | changes))
        return path

    return write


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "running"),
        ({"state": "planned"}, "planned"),
        ({"state": "failed", "updated": "2020-01-01T00:00:00+00:00"}, "failed"),
        ({"hours_ago": 1}, "silent"),
        ({"updated": "yesterday"}, "running"),
        ({"host": socket.gethostname(), "pid": os.getpid()}, "running"),
        ({"host": socket.gethostname(), "pid": 2**22 + 1}, "killed"),
    ],
)
def test_the_state_of_a_job_that_ended_without_writing_it_is_detected(
    put: Callable[..., Path], changes: dict[str, Any], state: str
) -> None:
    assert JobStatus.read(put("job", **changes)).state_now() == state


@pytest.mark.parametrize("content", [b"", b"[1]", b"\xff", b'{"state": "run'])
def test_a_damaged_status_file_raises_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "status.json").write_bytes(content)
    assert JobStatus.read(tmp_path / "status.json").state_now() == "unreadable"


def test_fields_may_be_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "status.json").write_text('{"state": "planned", "lines": null}')
    assert status.main([str(tmp_path)]) == 0
    assert "1 jobs: 1 planned" in capsys.readouterr().out


def test_the_table_shows_every_job(
    put: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put("a")
    put("b/shard-1-of-2", state="failed", message="ValueError in [red]f[/red]")
    assert status.main([str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "2 jobs: 1 failed, 1 running" in shown
    assert re.search(r"a .* running .* 50 of 200 rows \(25 %\) .* 3/s .* 50.0 s .* cuda:0", shown)
    assert re.search(r"b/shard-1-of-2 .* failed .* ValueError in \[red\]f\[/red\]", shown)


@pytest.mark.parametrize("command", [status.main, report_main])
def test_a_directory_without_jobs_is_reported(
    command: Callable[[list[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([str(tmp_path)]) == 1
    assert f"there are no jobs in {tmp_path}" in capsys.readouterr().err


class Page(HTMLParser):
    """Collects the references, the tags and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: list[str] = []
        self.text = ""
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        # An XML namespace is no reference, and a plot refers to its own parts.
        self.elsewhere += [
            str(value)
            for name, value in attrs
            if name in ("src", "href", "xlink:href") and not str(value).startswith("#")
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_report_of_a_sweep(
    command_line: Callable[..., Any],
    put: Callable[..., Path],
    directory: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    swept = command_line("--multirun", *MLP, "strategy=reverse-loop,vectorize,forward-mode")
    assert swept.code == 0, swept.err
    put("runs/<b>late</b>", state="failed", message="it & failed")
    assert report_main(["runs", "--csv", "report.csv", "--html", "report.html"]) == 0
    shown = capfd.readouterr().out
    assert "4 jobs" in shown
    assert len(re.findall(r"jacobian of mlp.*6 x 6 .*reverse-loop \(.* agree", shown)) == 2
    assert "it & failed" in shown
    with (directory / "report.csv").open() as file:
        lines = {line["strategy"]: line for line in csv.DictReader(file)}
    assert float(lines["vectorize"]["seconds"]) > 0
    assert float(lines["vectorize"]["entries_per_second"]) > 0
    assert float(lines["vectorize"]["error"]) <= float(lines["vectorize"]["tolerance"])
    assert int(lines["forward-mode"]["peak_memory_bytes"]) > 2**20
    page = Page()
    page.feed((directory / "report.html").read_text())
    assert page.elsewhere == []
    assert page.tags.count("svg") == 3
    assert page.tags.count("b") == 0
    assert "<b>late</b>" in page.text
    assert "Agreement between strategies" in page.text


def test_strategies_that_disagree_are_reported(
    command_line: Callable[..., Any], directory: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command_line("--multirun", *MLP, "strategy=reverse-loop,vectorize", "function.n=4,5")
    (spoilt,) = (p for p in directory.glob("runs/*vectorize*/result.h5") if rows_of(p) == 5)
    with h5py.File(spoilt, "r+") as file:
        matrix: Any = file["jacobian"]
        matrix[3, 1] = -matrix[3, 1]
    assert report_main(["runs"]) == 1
    shown = capfd.readouterr().out
    assert re.search(r"mlp\(n=5.*row 3, column 1 .*DISAGREE", shown)
    assert re.search(r"mlp\(n=4.* agree", shown)
    assert report_main(["runs", "--no-comparison"]) == 0
    assert "agreement" not in capfd.readouterr().out


def rows_of(path: Path) -> int:
    with open_result(path) as result:
        return result.shape[0]


def test_a_comparison_finds_the_largest_difference_in_any_layout(
    command_line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outputs._verification.comparison._PIECE_BYTES", 300)
    job = ("op=jacobian", "function=brusselator", "function.n=4")
    rows = command_line(*job, "strategy=vectorize").result
    columns = command_line(*job, "strategy=forward-mode", "output.tile=[5,3]").result
    with h5py.File(columns, "r+") as file:
        matrix: Any = file["jacobian"]
        before = matrix[...]
        matrix[17, 9] += 0.5
        after = matrix[...]
    with open_result(rows) as first, open_result(columns) as second:
        for one, other in ((first, second), (second, first)):
            found = compare_results(one, other)
            assert found.place == (17, 9)
            assert found.largest == pytest.approx(0.5)
            size = max(np.abs(before).max(), np.abs(after).max())
            assert found.relative == pytest.approx(0.5 / size)
        assert compare_results(first, first).relative == 0.0
        small = command_line(*MLP, "strategy=vectorize").result
        with open_result(small) as third, pytest.raises(ResultError, match=r"6 x 6.*one shape"):
            compare_results(first, third)


@pytest.mark.parametrize(
    ("value", "other", "relative"),
    [(np.nan, np.nan, 0.0), (np.inf, np.inf, 0.0), (np.inf, -np.inf, np.inf), (np.nan, 1, np.inf)],
)
def test_entries_that_are_not_finite_are_compared(
    command_line: Callable[..., Any], value: float, other: float, relative: float
) -> None:
    # With one chunk size, because the last bit may differ between chunks of different sizes.
    options = (*MLP, "strategy=vectorize", "chunk_size=2")
    paths = [command_line(*options, f"runs={name}").result for name in ("one", "two")]
    for path, entry in zip(paths, (value, other), strict=True):
        with h5py.File(path, "r+") as file:
            matrix: Any = file["jacobian"]
            matrix[2, 2] = entry
    with open_result(paths[0]) as first, open_result(paths[1]) as second:
        assert compare_results(first, second).relative == relative
