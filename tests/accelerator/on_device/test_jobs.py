"""Whole jobs on devices: their numbers, records, fingerprints, workers and messages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jobs
from jobs.errors import ConfigurationError
from jobs.execution.execute import execute
from jobs.machine import accelerator
from jobs.machine.devices import choose_devices
from jobs.reporting.terminal import Display
from outputs import open_result, open_sparse_result, verify_result
from tests.accelerator.on_device.conftest import KIND

OWN = """
import multiprocessing, os, pathlib, signal
import torch

def point(): return torch.linspace(0.5, 1.5, 24, dtype=torch.float64)
def turned(): return torch.linspace(0.5, 1.5, 6, dtype=torch.complex128) * (1 + 0.5j)
def outer(x): return torch.outer(x, x).reshape(-1)
def holomorphic(z): return z**2 * z.roll(1)
def absolute(z): return (z.conj() * z).real.cumsum(0)
def loss(y, target): return ((y - target) ** 2).mean()

def deadly(x, count=[0]):
    count[0] += 1
    bomb = pathlib.Path("bomb")
    if multiprocessing.parent_process() is not None and count[0] > 8 and bomb.exists():
        bomb.unlink(missing_ok=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return outer(x)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 5)
        self.last = torch.nn.Linear(5, 2)
    def forward(self, x):
        return self.last(torch.nn.functional.dropout(torch.tanh(self.first(x)), 0.5, self.training))

def net():
    torch.manual_seed(3)
    return Net()
"""
PYTHON = ("function=python", "function.target=./own.py:outer", "function.point=./own.py:point")
NET = ("function=python", "function.target=./own.py:net", "function.factory=true", "wrt=params")

CASES = {
    "hessian": ("op=hessian", "strategy=forward-mode", "function=pairwise_energy", "function.n=9"),
    "planned": ("op=jacobian", "function=mlp", "function.n=6"),
    "loop": (
        *("op=hessian", "strategy=reverse-loop", "function=mlp_parameters", "function.n=2"),
        "verify=sample",
    ),
    "product": ("op=jvp", "strategy=vectorize", "function=mlp", "function.n=9", "vectors.count=5"),
    "single": ("op=jacobian", "strategy=forward-mode", "function=burgers", "function.n=9"),
    "points": (
        *("op=jacobian", "strategy=vectorize", *PYTHON[:2], "inputs=numpy"),
        *("inputs.path=many.npy", "points=leading"),
    ),
    "complex": (
        *("op=jacobian", "strategy=vectorize", "dtype=complex128", "function=python"),
        *("function.target=./own.py:holomorphic", "function.point=./own.py:turned"),
    ),
    "complex to real": (
        *("op=jacobian", "strategy=reverse-loop", "dtype=complex128", "function=python"),
        *("function.target=./own.py:absolute", "function.point=./own.py:turned"),
    ),
    "parameters": ("op=jacobian", "strategy=vectorize", *NET, "inputs=numpy", "inputs.path=x.npy"),
    "dropout": (
        *("op=jacobian", "strategy=vectorize", *NET, "function.mode=train", "inputs=numpy"),
        "inputs.path=x.npy",
    ),
    "loss in batches": (
        *("op=hessian", "strategy=forward-mode", *NET, "inputs=numpy", "loss=mse"),
        *("inputs.path=data.npz", "loss.label=target", "loss.batch_size=3", "chunk_size=20"),
    ),
}


@pytest.fixture
def own(directory: Path) -> Path:
    (directory / "own.py").write_text(OWN)
    draw = np.random.default_rng(5)
    np.save("many.npy", draw.standard_normal((3, 5)))
    np.save("x.npy", draw.standard_normal((3, 4)))
    np.savez("data.npz", x=draw.standard_normal((8, 4)), target=draw.standard_normal((8, 2)))
    return directory


@pytest.mark.parametrize("name", CASES)
def test_a_job_gives_what_it_gives_on_the_processor(
    own: Path, run_job: Callable[..., Any], name: str
) -> None:
    options = CASES[name]
    there = run_job(*options, f"devices={KIND}:0", "runs=there")
    here = run_job(*options, "devices=cpu", "runs=here")
    assert here.fingerprint == there.fingerprint
    assert KIND in there.execution["device"]
    assert there.execution["peak_memory_bytes"] > 0
    assert there.verdict.state == here.verdict.state
    assert verify_result(there.path).ok
    # Random numbers of a device need not be those of the processor.
    if name != "dropout" or KIND == "software":
        expected, actual = here[:], there[:]
        assert np.allclose(actual, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_a_sparse_matrix_is_the_one_of_the_processor(
    resolved: Callable[..., Any], quiet: Display
) -> None:
    options = ("op=jacobian", "function=burgers", "function.n=20", "sparsity=auto")
    found = []
    for place in (f"{KIND}:0", "cpu"):
        path = execute(resolved(*options, f"devices={place}", f"runs={place}"), quiet)
        assert verify_result(path).ok
        with open_sparse_result(path) as result:
            found.append((result.as_scipy().toarray(), result.fingerprint))
    (there, own), (here, other) = found
    assert own == other
    assert np.allclose(there, here, rtol=1e-12)


def test_work_is_done_on_the_device_that_is_named(
    run_job: Callable[..., Any], second: torch.device
) -> None:
    # Not on the first, which is torch's default.
    before = torch.accelerator.memory_stats(0).get("allocated_bytes.all.allocated", 0)
    run_job(
        "op=jacobian", "strategy=vectorize", "function=mlp", "function.n=6", f"devices={second}"
    )
    after = torch.accelerator.memory_stats(0).get("allocated_bytes.all.allocated", 0)
    assert after == before
    if KIND == "software":
        calls = torch.ops.software.calls()
        assert any(name.endswith(":1") for name in calls)
        assert not any(name.endswith(":0") for name in calls)


def test_several_devices_share_a_job_and_one_may_die(
    own: Path, run_job: Callable[..., Any], second: torch.device
) -> None:
    options = (
        *("op=jacobian", "strategy=forward-loop", "function=python", "chunk_size=2"),
        *("function.target=./own.py:deadly", "function.point=./own.py:point"),
    )
    (own / "bomb").touch()
    shared = run_job(*options, f"devices=[{KIND}:0,{second}]", "runs=shared")
    assert not (own / "bomb").exists()
    workers = shared.execution["workers"]
    assert {each["device"].split()[0] for each in workers} == {f"{KIND}:0", str(second)}
    assert sum("lost" in each for each in workers) == 1
    alone = run_job(*options, "devices=cpu", "runs=alone")
    assert np.array_equal(shared[:], alone[:])
    assert shared.fingerprint == alone.fingerprint
    assert verify_result(shared.path).ok


def test_a_job_is_resumed_on_the_processor(
    own: Path, resolved: Callable[..., Any], run_job: Callable[..., Any]
) -> None:
    from jobs.execution import dense as module

    options = ("op=jacobian", "strategy=vectorize", *PYTHON, "chunk_size=5")
    ended = RuntimeError("as it was asked to")
    original = module.BackgroundWriter.submit
    blocks = []

    def submit(self: Any, *given: Any, **more: Any) -> Any:
        blocks.append(given)
        if len(blocks) == 3:
            raise ended
        return original(self, *given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.BackgroundWriter, "submit", submit)
        with pytest.raises(RuntimeError, match="as it was asked to"):
            run_job(*options, f"devices={KIND}:0")
    result = run_job(*options, "devices=cpu")
    assert 0 < result.execution["lines_resumed"] < result.shape[0]
    assert len(result.execution["attempts"]) == 2
    assert verify_result(result.path).ok


@pytest.mark.parametrize(
    "value", ["gpu", f"{KIND}:7", [f"{KIND}:0", f"{KIND}:7"], [f"{KIND}:0", "cpu"]]
)
def test_devices_that_are_not_here_end_in_a_message_that_lists_those_that_are(
    value: str | list[str],
) -> None:
    shown = value if isinstance(value, str) else f"[{','.join(value)}]"
    with pytest.raises(ConfigurationError) as raised:
        choose_devices(value, "float64")
    message = str(raised.value)
    assert message.startswith(f"devices={shown}: ")
    assert f"valid here are auto, cpu, cpu:4 (four processes), {KIND} (all), {KIND}:0" in message


def test_auto_takes_a_device_and_a_kind_takes_all(
    command_line: Callable[..., Any], resolved: Callable[..., Any], device: torch.device
) -> None:
    options = ("op=jacobian", "strategy=vectorize", "function=mlp", "function.n=4")
    finished = command_line(*options, "progress=quiet", "devices=auto")
    assert finished.code == 0, finished.err
    with open_result(finished.result) as result:
        assert not result.execution["workers"]
        assert KIND in result.execution["device"]
    count = torch.accelerator.device_count()
    assert resolved(*options, f"devices={KIND}").devices == tuple(
        torch.device(KIND, index) for index in range(count)
    )


@pytest.mark.filterwarnings("error")
def test_a_call_leaves_the_generators_of_all_devices_as_they_were(
    directory: Path, device: torch.device
) -> None:
    count = torch.accelerator.device_count()
    draws = []
    for is_called in (False, True):
        torch.manual_seed(3)
        if is_called:
            x = torch.linspace(0.1, 1, 3, dtype=torch.float64)
            with jobs.compute("jacobian", torch.sin, x, devices=str(device)) as result:
                assert KIND in result.execution["device"]
        draws.append([torch.rand(2, device=f"{KIND}:{each}").tolist() for each in range(count)])
    assert draws[0] == draws[1]


@pytest.mark.hostile
def test_a_kind_without_a_compiler_gives_a_note(run_job: Callable[..., Any]) -> None:
    options = ("op=jacobian", "strategy=vectorize", "function=mlp", "function.n=4", "chunk_size=2")
    there = run_job(*options, "compile=always", f"devices={KIND}:0", "runs=there")
    assert there.execution["engine"] == "captured"
    assert (
        f"not compiled (torch.compile does not make kernels for devices of the kind {KIND})"
        in (there.execution["plan"]["strategy_reason"])
    )
    here = run_job(*options, "compile=never", "devices=cpu", "runs=here")
    assert np.allclose(there[:], here[:], rtol=1e-12, atol=1e-14)


def test_a_process_allocates_on_the_device_that_was_made_current(second: torch.device) -> None:
    before = torch.accelerator.current_device_index()
    accelerator.make_current(second)
    assert torch.empty(1, device=KIND).device == second
    accelerator.make_current(torch.device("cpu"))
    assert torch.empty(1, device=KIND).device == second
    accelerator.make_current(torch.device(KIND, before))
