"""A range without quotes in a file of options is a range: YAML 1.1 reads 1:3 as 63."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from outputs import open_result

OPTIONS = """# @package _global_
defaults:
  - override /function: mlp
op: jacobian
function: {n: 20}
"""


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ("rows: 1:3", [1, 2]),
        ("rows: {lines: [0, 2:5, 11:12]}", [0, 2, 3, 4, 11]),
        ("rows: {of: y, index: 1:3}", [1, 2]),
        ("rows: {lines: 1:11}", range(1, 11)),
        ("rows: 12", [12]),
    ],
)
def test_a_range_in_a_file_is_a_range(
    command_line: Callable[..., Any], directory: Path, options: str, chosen: list[int]
) -> None:
    (directory / "mine/experiment").mkdir(parents=True)
    (directory / "mine/experiment/part.yaml").write_text(f"{OPTIONS}{options}\n")
    words = ("+experiment=part", "progress=quiet")
    ended = command_line("--config-dir=mine", *words)
    assert ended.code == 0, ended.err
    with open_result(ended.result) as result:
        assert np.array_equal(result.row_numbers, chosen)


def test_a_list_in_a_file_is_refused_with_what_is_valid(
    command_line: Callable[..., Any], directory: Path
) -> None:
    (directory / "mine/experiment").mkdir(parents=True)
    (directory / "mine/experiment/part.yaml").write_text(f"{OPTIONS}rows: [0, 2]\n")
    ended = command_line("--config-dir=mine", "+experiment=part")
    assert ended.code == 1
    assert "experiment/part.yaml" in ended.err
    assert "'rows: {lines: [0, 300]}'" in ended.err


def test_what_others_read_by_omegaconf_is_left_as_it_is(
    command_line: Callable[..., Any], directory: Path
) -> None:
    assert command_line("function=rosenbrock", "function.n=3", "progress=quiet").code == 0
    (directory / "other.yaml").write_text("duration: 1:30\n")
    assert OmegaConf.load(directory / "other.yaml").duration == 90
