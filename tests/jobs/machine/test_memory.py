"""Budgets and measurements, checked against known allocations, system limits and real kills."""

import contextlib
import io
import os
import resource
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from autodiff_core import is_out_of_memory
from jobs.execution.execute import execute
from jobs.job import Job
from jobs.machine.measurement import TensorBytes, limited_memory, measuring
from jobs.machine.memory import (
    available_host_memory,
    control_group_memory,
    memory_budget,
)
from jobs.machine.process_memory import kernel_figure, resident_memory
from jobs.reporting.terminal import Display
from jobs.units import parse_size
from outputs import open_result

CPU = torch.device("cpu")
MIB = 2**20
# ``AUTODIFF_JOBS_BLOCKS=10000`` is the full number, and takes a minute.
BLOCKS = int(os.environ.get("AUTODIFF_JOBS_BLOCKS", "1000"))
HUNGRY = """
import torch

def f(x):
    # A chunk of k columns holds k matrices of 32 MiB.
    return (torch.outer(x, x).repeat(128, 128).exp() * 1e-9).sum(0)

def point(): return torch.linspace(0, 1, 16, dtype=torch.float64)
"""
HUNGRY_JOB = (
    *("op=jacobian", "strategy=forward-mode", "function=python", "function.target=hungry:f"),
    *("function.point=hungry:point", "chunk_size=16", "memory=64GiB", "verify='off'"),
)


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 * 2**30), ("1.5MB", 1_500_000), ("512 MiB", 512 * MIB), ("7B", 7), ("2kB", 2000)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "8", "GiB", "-1GB", "0MB", "1e9B", "8gib", "lots"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("mebibytes", [64, 256])
def test_a_peak_that_is_gone_is_measured(mebibytes: int) -> None:
    with measuring(CPU) as empty:
        pass
    with measuring(CPU) as found:
        big = torch.ones(mebibytes * MIB // 8, dtype=torch.float64)
        del big
    assert abs(found.peak_bytes - empty.peak_bytes - mebibytes * MIB) < 8 * MIB


def test_live_tensors_are_counted_through_transformations() -> None:
    x = torch.randn(1000, dtype=torch.float64)
    weights = torch.randn(1000, 1000, dtype=torch.float64)
    with TensorBytes() as counted:
        jacobian = torch.func.jacfwd(lambda x: (weights @ x).sin())(x)
        view = weights[:10]
    # The identity, its product and the result; the weights were allocated before.
    assert 2 * weights.nbytes < counted.peak < 6 * weights.nbytes
    assert jacobian.nbytes <= counted.live < 2 * jacobian.nbytes
    del jacobian
    assert counted.live < 10_000
    assert view.shape == (10, 1000)


def test_an_allocation_beyond_the_limit_fails_and_later_ones_do_not() -> None:
    # Threads start before memory is limited.
    torch.ones(2**20).sin()
    # More than malloc can have kept of what earlier tests have freed.
    beyond = (kernel_figure("VmData") or 0) + 200 * MIB
    with limited_memory(100 * MIB), pytest.raises(RuntimeError) as caught:
        torch.empty(beyond, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert torch.ones(200 * MIB // 4).numel()


def test_a_limit_of_the_process_counts() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    free = available_host_memory()[0]
    with limited_memory(free // 8):
        limited, reason = available_host_memory()
    assert limited < free // 4
    assert "ulimit" in reason
    assert resource.getrlimit(resource.RLIMIT_DATA) == (soft, hard)


def test_the_budget_is_what_was_asked_for_or_a_share_of_what_is_free() -> None:
    assert memory_budget(123, CPU).bytes == 123
    budget = memory_budget(None, CPU)
    free = available_host_memory()[0]
    assert 0.6 * free < budget.bytes - resident_memory() < 0.95 * free
    assert "80% of what is free" in budget.reason


GROUPS = {
    "version 2": (
        "0::/user/job\n",
        "30 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "memory.max",
        "memory.current",
        "inactive_file 100\n",
    ),
    "version 1": (
        "5:cpu,cpuacct:/other\n4:memory:/user/job\n0::/\n",
        "30 1 0:1 / /sys/fs/cgroup rw shared:1 - cgroup cgroup rw,memory\n",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file 100\n",
    ),
    "container": (
        "0::/docker/abc/user/job\n",
        "30 1 0:1 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "memory.max",
        "memory.current",
        "inactive_file 100\n",
    ),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_every_control_group_above_the_process_counts(kind: str, tmp_path: Path) -> None:
    membership, mounts, limit, used, statistics = GROUPS[kind]
    process = tmp_path / "proc"
    process.mkdir()
    (process / "cgroup").write_text(membership)
    (process / "mountinfo").write_text(mounts)
    top = tmp_path / "sys/fs/cgroup"
    for directory, most in (("user/job", "max"), ("user", "1000"), ("", "5000")):
        (top / directory).mkdir(parents=True, exist_ok=True)
        (top / directory / limit).write_text(most)
        (top / directory / used).write_text("400")
        (top / directory / "memory.stat").write_text(statistics)
    assert list(control_group_memory(process, tmp_path)) == [1000 - 400 + 100, 5000 - 400 + 100]


@pytest.fixture
def control_group() -> Iterator[Path]:
    """A control group of version 1 or 2 with 700 MiB and no swap."""
    for top in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        group = top / f"autodiff-{uuid.uuid4().hex[:8]}"
        limits = {"memory.limit_in_bytes", "memory.max"}
        try:
            group.mkdir()
            name = next(name for name in limits if (group / name).exists())
            (group / name).write_text(str(700 * MIB))
        except (OSError, StopIteration):
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("control groups can be made by root only")


def run_in(group: Path | None, directory: Path, *options: str, limit: int | None = None):
    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    (directory / "hungry.py").write_text(HUNGRY)
    return subprocess.run(
        [sys.executable, "-m", "jobs.run", *options],
        cwd=directory,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=enter,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_control_group_sets_the_budget(control_group: Path, tmp_path: Path) -> None:
    done = run_in(control_group, tmp_path, "plan=true", "function=rosenbrock")
    assert done.returncode == 0, done.stderr
    assert "80% of what is free in the control group" in done.stdout


def test_a_job_that_the_system_kills_for_memory_continues_with_less(
    control_group: Path, tmp_path: Path
) -> None:
    done = run_in(control_group, tmp_path, *HUNGRY_JOB)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the system killed the job because no memory was free" in done.stderr
    with open_result(done.stdout.splitlines()[-1]) as result:
        assert result.execution["chunk_size"] < 16
        assert any("the system killed" in each for each in result.execution["fallbacks"])
        x = result.points["x"]
        assert result.shape == (2048, 16)
        assert result[...].sum() == pytest.approx(float(expected_sum(torch.tensor(x))), rel=1e-10)


def test_an_allocation_that_fails_halves_the_chunk(tmp_path: Path) -> None:
    done = run_in(None, tmp_path, *HUNGRY_JOB, limit=1300 * MIB)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "note: out of memory at columns 0" in done.stdout
    with open_result(done.stdout.splitlines()[-1]) as result:
        sizes = result.execution["chunk_sizes"]
        assert sizes[0] == 16
        assert sizes == [16 >> step for step in range(len(sizes))]
        assert sizes[-1] < 16
        x = torch.tensor(result.points["x"])
        assert result[...].sum() == pytest.approx(float(expected_sum(x)), rel=1e-10)


def test_the_message_about_one_line_that_does_not_fit_has_figures(tmp_path: Path) -> None:
    options = [*HUNGRY_JOB[:-3], "chunk_size=auto", "memory=200MiB"]
    done = run_in(None, tmp_path, *options)
    assert done.returncode == 1
    assert "of memory, and the budget is 210 MB" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("runs/**/*.h5*")) == []


class Watching(Display):
    """Records the memory of the process after each block."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()))
        self.occupied: list[int] = []

    @contextlib.contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        yield lambda lines: self.occupied.append(resident_memory())


def test_memory_does_not_grow_with_the_number_of_blocks(resolved: Callable[..., Job]) -> None:
    function = ("function=rosenbrock", f"function.n={BLOCKS}", "output.dtype=float16")
    display = Watching()
    execute(resolved("op=hessian", *function, "strategy=reverse-loop", "chunk_size=1"), display)
    grown = display.occupied[-1] - display.occupied[10]
    assert len(display.occupied) == BLOCKS
    # The ledger keeps some numbers per block in memory; a block has 8 bytes per column.
    assert grown < 2**20 + 200 * BLOCKS < 8 * BLOCKS**2 / 4


def expected_sum(x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    total = 128 * 128 * (torch.outer(x, x).exp() * 1e-9).sum()
    return torch.autograd.grad(total, x)[0].sum()
