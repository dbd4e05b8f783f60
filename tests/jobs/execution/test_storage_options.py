"""A file that was begun is continued as it is stored, or not at all."""

import re
from collections.abc import Callable

import numpy as np
import pytest

from jobs.errors import JobError
from jobs.execution.execute import execute
from jobs.job import Job
from jobs.reporting.terminal import Display
from outputs import open_result, part_path
from tests.jobs.support.interruption import interrupted_after

# Runs are interrupted at one of their lines.
pytestmark = pytest.mark.usefixtures("in_order")

SMALL = ("op=hessian", "strategy=vectorize", "function=rosenbrock", "function.n=12", "chunk_size=3")


def begin(job: Job, display: Display) -> None:
    with pytest.MonkeyPatch.context() as patch, interrupted_after(2, patch):
        execute(job, display)


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ("output.dtype=float32", "", "output.dtype: .* was begun with float32.* asks for auto"),
        ("", "output.dtype=float32", "output.dtype: .* was begun with float64.* asks for float32"),
        ("", "output.compression=gzip", "output.compression: .* begun with none.* asks for gzip"),
        ("output.compression=gzip", "", "output.compression: .* begun with gzip.* asks for none"),
        ("output.tile=[3,4]", "output.tile=[4,4]", r"output.tile: .* with \[3, 4\]"),
        ("output.tile=[3,4]", "", r"output.tile: .* with \[3, 4\].* asks for auto"),
        ("", "output.tile=[3,4]", "output.tile: .* with auto.*output.tile=null"),
    ],
)
def test_another_way_of_storage_is_refused_with_the_remedies(
    before: str, now: str, message: str, resolved: Callable[..., Job], quiet: Display
) -> None:
    first = resolved(*SMALL, *filter(None, [before]))
    begin(first, quiet)
    part = part_path(first.paths.result)
    content = part.read_bytes()
    second = resolved(*SMALL, *filter(None, [now]))
    with pytest.raises(JobError, match=message):
        execute(second, quiet)
    assert part.read_bytes() == content
    with open_result(execute(first, quiet)) as result:
        assert result.execution["lines_resumed"] == 6


def test_overwriting_stores_as_it_is_asked_to(resolved: Callable[..., Job], quiet: Display) -> None:
    begin(resolved(*SMALL), quiet)
    path = execute(resolved(*SMALL, "output.dtype=float32"), quiet, overwrite=True)
    with open_result(path) as result:
        assert result.dtype == np.float32


def test_the_dtype_that_is_stored_anyway_is_no_other(
    resolved: Callable[..., Job], quiet: Display
) -> None:
    begin(resolved(*SMALL), quiet)
    with open_result(execute(resolved(*SMALL, "output.dtype=float64"), quiet)) as result:
        assert result.execution["lines_resumed"] == 6


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ("output.dtype=float32", "", "output.dtype: .* stored with float32.* asks for auto"),
        ("", "output.dtype=float32", "output.dtype: .* stored with float64.* asks for float32"),
        ("", "output.compression=gzip", "output.compression: .* with none.* asks for gzip"),
        ("output.compression=gzip", "", "output.compression: .* with gzip.* asks for none"),
        ("output.tile=[3,4]", "", r"output.tile: .* with \[3, 4\]"),
        ("sparsity=auto output.dtype=float32", "sparsity=auto", "with float32.* asks for auto"),
        ("sparsity=auto", "sparsity=auto output.compression=gzip", "with none.* asks for gzip"),
    ],
)
def test_a_finished_result_is_not_called_finished_if_another_storage_is_asked_for(
    before: str, now: str, message: str, resolved: Callable[..., Job], quiet: Display
) -> None:
    options = (*SMALL[:3], "function.n=40")
    path = execute(resolved(*options, *before.split()), quiet)
    content = path.read_bytes()
    with pytest.raises(JobError, match=f"{message}.*overwrite=true") as caught:
        execute(resolved(*options, *now.split()), quiet)
    assert re.search(r"output\.\w+=\S+ accepts it$", str(caught.value))
    assert len(str(caught.value).splitlines()) == 1
    assert path.read_bytes() == content
    assert execute(resolved(*options, *before.split()), quiet) == path
    replaced = execute(resolved(*options, *now.split()), quiet, overwrite=True)
    assert replaced == path
    assert execute(resolved(*options, *now.split()), quiet) == path


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("output.dtype=float64", ""),
        ("", "output.dtype=float64"),
        ("dtype=bfloat16", "dtype=bfloat16 output.dtype=float32"),
        ("dtype=bfloat16 output.dtype=float32", "dtype=bfloat16"),
    ],
)
def test_a_finished_result_of_the_same_dtype_is_finished(
    before: str, now: str, resolved: Callable[..., Job], quiet: Display
) -> None:
    path = execute(resolved(*SMALL, *before.split()), quiet)
    inode = path.stat().st_ino
    assert execute(resolved(*SMALL, *now.split()), quiet).stat().st_ino == inode
