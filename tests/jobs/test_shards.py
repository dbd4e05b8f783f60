"""Shards of a job: their lines, their directories, and the merged matrix."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import JobError
from jobs.shards import check_shard, share
from outputs import open_result
from outputs.merge import main as merge

MLP = ("op=jacobian", "strategy=vectorize", "function=mlp", "function.n=40", "chunk_size=2")


@given(st.integers(1, 200), st.integers(1, 10**6))
def test_shares_cover_the_lines_evenly(count: int, lines: int) -> None:
    if count > lines:
        with pytest.raises(JobError, match=f"valid are up to {lines} shards"):
            share(0, count, lines, "rows")
        return
    shards = [share(index, count, lines, "rows") for index in range(count)]
    assert [shard.start for shard in shards] == [0, *(shard.stop for shard in shards[:-1])]
    assert shards[-1].stop == lines
    sizes = [shard.stop - shard.start for shard in shards]
    assert max(sizes) - min(sizes) <= max(1, 0.26 * lines / count)


@pytest.mark.parametrize(
    ("shard", "shards", "expected"),
    [(None, None, None), ("3/8", None, (3, 8)), ("3", 8, (3, 8)), ("0/1", 1, (0, 1))],
)
def test_a_shard_is_written_in_two_ways(
    shard: str | None, shards: int | None, expected: tuple[int, int] | None
) -> None:
    assert check_shard(shard, shards) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("shard=8/8",), "shard=8/8: valid is shard=0/8 to shard=7/8"),
        (("shard=0/0",), "shard=0/0: valid is a count from 1 on"),
        (("shard=3",), "valid is index/count with the index from 0, such as shard=3/8"),
        (("shard=a/b",), "shard=a/b: valid is index/count"),
        (("shard=1/8", "shards=4"), "two different counts"),
        (("shards=4",), "valid are shard=0 to shard=3, and with --multirun 'shard=range(4)'"),
        (("shards=0", "shard=0"), "shards=0: valid are integers from 1 on"),
        (("shard=0/2", "strategy=auto"), "every task could choose another one; valid are reverse-"),
        (("shard=0/41",), "the matrix has 40 rows; valid are up to 40 shards"),
    ],
)
def test_mistakes_are_reported(
    command_line: Callable[..., Any], options: tuple[str, ...], message: str
) -> None:
    finished = command_line(*MLP, *options)
    assert finished.code == 1
    assert message in finished.err
    assert "Traceback" not in finished.err


@pytest.mark.parametrize(
    ("op", "strategy"),
    [("jacobian", "reverse-loop"), ("hessian", "forward-mode"), ("vjp", "vectorize")],
)
def test_a_swept_matrix_is_the_unsharded_one(
    command_line: Callable[..., Any], directory: Path, op: str, strategy: str
) -> None:
    function = "mlp" if op != "hessian" else "rosenbrock"
    options = (f"op={op}", f"strategy={strategy}", f"function={function}", "function.n=12")
    options += ("chunk_size=2", "vectors.count=5") if op == "vjp" else ("chunk_size=2",)
    whole = command_line(*options, "runs=whole")
    finished = command_line("--multirun", *options, "shards=3", "shard=range(3)")
    assert finished.code == 0, finished.err
    (run,) = (directory / "runs").glob(f"{function}-*")
    assert sorted(path.name for path in run.iterdir()) == [f"shard-{i}-of-3" for i in range(3)]
    assert merge([str(run), "-o", str(run / "result.h5")]) == 0
    with open_result(whole.result) as expected, open_result(run / "result.h5") as result:
        np.testing.assert_array_equal(result[...], expected[...])
        assert result.fingerprint == expected.fingerprint
        assert result.configuration == expected.configuration.replace("whole", "runs")


def test_what_is_merged_is_not_computed_again(
    command_line: Callable[..., Any], directory: Path
) -> None:
    for index in range(2):
        assert command_line(*MLP, f"shard={index}/2").code == 0
    again = command_line(*MLP, "shard=1/2")
    assert "finished already (20 x 40)" in again.out
    run = again.result.parent.parent
    assert merge([str(run), "-o", str(run / "result.h5")]) == 0
    for options in ((), ("shard=1/4",)):
        assert "finished already (40 x 40)" in command_line(*MLP, *options).out


def test_a_plan_names_the_part(command_line: Callable[..., Any]) -> None:
    planned = command_line(*MLP, "shard=1/2", "plan=true")
    assert "20 rows x 40 columns" in planned.out
    assert "shard 1/2, rows 20 to 40 of a matrix of 40 x 40" in planned.out
