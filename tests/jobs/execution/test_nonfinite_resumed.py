"""Entries that are not finite count for the whole matrix, whichever start has written them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import JobError
from jobs.execution.execute import execute
from jobs.job import Job
from jobs.reporting.terminal import Display
from outputs import ResultWriter, Shard, open_result
from tests.jobs.support.interruption import interrupted_after

# Runs are interrupted at one of their lines.
pytestmark = pytest.mark.usefixtures("in_order")

Resolve = Callable[..., Job]

# The derivative of the square root at zero is infinite: rows 1, 2 and 7.
BAD = """
import torch
def f(x): return x.sqrt()
def point():
    x = torch.arange(1.0, 11.0, dtype=torch.float64)
    x[[1, 2, 7]] = 0
    return x
"""


@pytest.fixture
def options(directory: Path) -> tuple[str, ...]:
    (directory / "bad.py").write_text(BAD)
    return (
        *("op=jacobian", "chunk_size=2", "function=python", "verify='off'"),
        *("function.target=bad:f", "function.point=bad:point"),
    )


@pytest.fixture
def interrupted(
    resolved: Resolve, quiet: Display, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, int], None]:
    """Compute some blocks of the job."""

    def compute(strategy: str, blocks: int) -> None:
        with interrupted_after(blocks, monkeypatch):
            execute(resolved(*options, f"strategy={strategy}"), quiet)

    return compute


@pytest.mark.parametrize("strategy", ["reverse-loop", "forward-loop"])
@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_earlier_starts_count(
    strategy: str,
    blocks: int,
    resolved: Resolve,
    quiet: Display,
    options: tuple[str, ...],
    interrupted: Callable[[str, int], None],
) -> None:
    interrupted(strategy, blocks)
    with open_result(execute(resolved(*options, f"strategy={strategy}"), quiet)) as result:
        assert result.execution["lines_resumed"] == 2 * blocks
        figures = result.execution["nonfinite"]
        places = np.argwhere(~np.isfinite(result[:]))
        assert figures["count"] == len(places) > 0
        found = {tuple(place) for place in figures["first"]}
        assert found <= {tuple(place) for place in places.tolist()}
        assert len(found) == min(5, len(places))


def test_fail_also_refuses_what_an_earlier_start_has_written(
    resolved: Resolve,
    quiet: Display,
    options: tuple[str, ...],
    interrupted: Callable[[str, int], None],
) -> None:
    interrupted("reverse-loop", 4)
    strict = resolved(*options, "strategy=reverse-loop", "nonfinite=fail")
    message = r"an earlier start has written holds \d+ entries that are not .* row 0, column 1"
    with pytest.raises(JobError, match=message):
        execute(strict, quiet)
    execute(resolved(*options, "strategy=reverse-loop"), quiet)
    with pytest.raises(JobError, match=r"result.h5 holds \d+ entries that are not finite"):
        execute(strict, quiet)


def test_a_writer_counts_lines_in_the_whole_matrix_and_no_damaged_block(
    tmp_path: Path, describe_shard: Callable[..., object]
) -> None:
    path = tmp_path / "r.h5"
    values = np.zeros((2, 6))
    values[1, 3] = np.inf
    with ResultWriter.create(path, describe_shard(Shard(1, 2, 4, 8))) as writer:  # pyright: ignore[reportArgumentType]
        writer.write(4, 6, values)
        writer.write(6, 8, np.full((2, 6), np.nan))
        part = writer.part
    with ResultWriter.resume(path, "0123456789abcdef") as writer:
        assert writer.nonfinite == 13
        assert writer.first_nonfinite[0] == (5, 3)
    content = part.read_bytes()
    damaged = content.replace(np.full(12, np.nan).tobytes(), np.full(12, np.inf).tobytes())
    assert damaged != content
    part.write_bytes(damaged)
    with ResultWriter.resume(path, "0123456789abcdef") as writer:
        assert writer.damaged == [(6, 8)]
        assert (writer.nonfinite, writer.first_nonfinite) == (1, [(5, 3)])


@pytest.fixture
def describe_shard() -> Callable[..., object]:
    from tests.outputs.conftest import description

    return lambda shard: description((8, 6), shard=shard)
