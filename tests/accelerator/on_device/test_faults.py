"""Faults that are planted are found: the software accelerator is as unkind as a device may be."""

import inspect
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch

from autodiff_core import blocks
from autodiff_core._programs import stacks
from autodiff_core._programs.rules import elementwise, scattering
from autodiff_core._tensors import randomness
from jobs.execution.workers.copies import CopiesFromDevice
from jobs.execution.workers.shared_buffers import SharedBuffers
from jobs.machine.accelerator import SideStream
from jobs.machine.device_copies import copies_to_host
from tests.accelerator.on_device.conftest import KIND
from tests.accelerator.on_device.test_problems import (
    test_a_device_gives_what_the_processor_gives as compare_with_the_processor,
)

pytestmark = pytest.mark.hostile


def plant(patch: pytest.MonkeyPatch, function: Any, text: str, instead: str) -> None:
    """Replace a piece of the source of a function, wherever the function is already in use."""
    assert isinstance(function, FunctionType)
    source = textwrap.dedent(inspect.getsource(function))
    assert text in source
    # Decorators would register the rule twice.
    body = source[source.index("def ") :].replace(text, instead)
    space: dict[str, Any] = {}
    exec(
        compile(body, f"<planted in {function.__name__}>", "exec"),
        dict(function.__globals__),
        space,
    )
    patch.setattr(function, "__code__", space[function.__name__].__code__)


def copied(
    device: torch.device, count: int = 4, other: Callable[[torch.device], Any] = copies_to_host
) -> list[np.ndarray]:
    """Compute blocks, each while the one before is copied, and return what arrives."""
    copy = other(device)
    assert copy is not None
    arrived, under_way = [], None
    for number in range(count):
        values = torch.full((3, 4), float(number), dtype=torch.float64, device=device).cumsum(0)
        begun = copy(values.T, np.dtype("float32"))
        del values
        if under_way is not None:
            arrived.append(under_way().copy())
        under_way = begun
    assert under_way is not None
    return [*arrived, under_way()]


def through_shared_memory(device: torch.device) -> Any:
    """Return a function that copies as a worker does."""
    buffers = SharedBuffers(2, 48)
    copies = CopiesFromDevice(device, buffers)
    numbers = iter(range(100))

    def copy(values: torch.Tensor, stored: np.dtype) -> Callable[[], np.ndarray]:
        place = next(numbers) % 2
        has_arrived: list[np.ndarray] = []

        def announce() -> None:
            here = np.frombuffer(buffers.buffer(place), stored, 12)
            has_arrived.append(here.reshape(4, 3).copy())

        copies.start(values, stored, place, announce)

        def finish() -> np.ndarray:
            if not has_arrived:
                copies.finish()
            return has_arrived[0]

        return finish

    return copy


WAYS = {"pinned": copies_to_host, "shared": through_shared_memory}
EXPECTED = [np.full((4, 3), number) * [1, 2, 3] for number in range(4)]
FAULTS = {
    "no wait for the kernels": (
        "self._stream.wait_stream(torch.accelerator.current_stream(self._device))",
        "pass",
    ),
    "read before its copy": ("return copied", "return torch.Event(self._device)"),
    "freed buffer used again": ("source.record_stream(self._stream)", "pass"),
}


@pytest.mark.parametrize("way", WAYS)
def test_blocks_arrive_as_they_were_computed(device: torch.device, way: str) -> None:
    assert np.array_equal(copied(device, other=WAYS[way]), EXPECTED)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("way", WAYS)
def test_a_fault_in_a_copy_gives_other_numbers(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, way: str, fault: str
) -> None:
    plant(monkeypatch, SideStream.copy, *FAULTS[fault])
    assert not np.array_equal(copied(device, other=WAYS[way]), EXPECTED)


@pytest.mark.parametrize("fault", ["no wait for the kernels", "freed buffer used again"])
def test_a_fault_in_a_copy_is_seen_in_the_file(
    run_job: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    options = ("op=jacobian", "strategy=vectorize", "function=mlp", "function.n=8", "chunk_size=3")
    options = (*options, "output.dtype=float32")
    plain = run_job(*options, f"devices={KIND}:0", "runs=plain")
    plant(monkeypatch, SideStream.copy, *FAULTS[fault])
    faulty = run_job(*options, f"devices={KIND}:0", "runs=faulty")
    assert not np.array_equal(plain[:], faulty[:])
    here = run_job(*options, "devices=cpu", "runs=here")
    assert np.allclose(plain[:], here[:], rtol=1e-6)


def compare_problem(name: str) -> Callable[[], None]:
    return partial(compare_with_the_processor, name, "jacobian", "vectorize")


def compare_windows() -> None:
    """Compare the derivative of overlapping windows."""
    point = torch.linspace(0, 1, 60, dtype=torch.float64)

    def windows(x: torch.Tensor) -> torch.Tensor:
        return x.unfold(0, 4, 2).sin()

    found = [
        blocks(windows, each, operation="jacobian", strategy="vectorize", engine="captured")
        for each in (point, point.to(KIND))
    ]
    wanted, actual = (stream.block(10, 30).values.cpu() for stream in found)
    assert [stream.engine for stream in found] == ["captured"] * 2
    torch.testing.assert_close(actual, wanted, rtol=1e-12, atol=1e-14)


RULES = {
    "one-hot vectors": (
        *(stacks.one_hot, "like.new_zeros((count, *shape[:dim]"),
        *("torch.zeros((count, *shape[:dim]", compare_problem("brusselator")),
    ),
    "windows": (scattering._unfold_backward, "device=out.device", "device='cpu'", compare_windows),
    "elementwise": (
        elementwise._elementwise,
        "device=source.device",
        "device='cpu'",
        compare_problem("mlp"),
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_tensor_made_on_the_processor_is_found(
    monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    function, text, instead, compare = RULES[rule]
    compare()
    plant(monkeypatch, function, text, instead)
    with pytest.raises((AssertionError, RuntimeError)):
        compare()


def dropout(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.dropout(x, 0.5) * torch.ones(24, dtype=x.dtype, device=x.device)


@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode", "forward-loop"])
def test_dropout_is_replayed(device: torch.device, strategy: str) -> None:
    torch.manual_seed(1)
    x = torch.ones(24, dtype=torch.float64, device=device)
    stream = blocks(dropout, x, operation="jacobian", strategy=strategy, chunk_size=5)
    assert torch.equal(stream.matrix(), torch.diag(stream.value))
    assert set(stream.value.tolist()) == {0.0, 2.0}


def test_dropout_that_is_not_replayed_is_found(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(randomness, "_restore", lambda states: None)
    with pytest.raises((AssertionError, RuntimeError)):
        test_dropout_is_replayed(device, "forward-loop")


def test_work_waits_until_it_is_waited_for(device: torch.device, directory: Path) -> None:
    torch.accelerator.synchronize(device)
    x = torch.ones(4, device=device) + 1
    assert torch.ops.software.waiting() > 0
    torch.accelerator.synchronize(device)
    assert torch.ops.software.waiting() == 0
    target = torch.empty(4, pin_memory=True)
    target.copy_(x * 3, non_blocking=True)
    assert target.isnan().all()
    torch.accelerator.synchronize(device)
    assert target.tolist() == [6.0] * 4
    assert torch.empty(4, device=device).isnan().all()
    with pytest.raises(
        RuntimeError, match=r"same device|one tensor is on the software accelerator"
    ):
        x.add_(torch.ones(4))
