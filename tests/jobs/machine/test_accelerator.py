"""What differs between kinds of devices, for kinds that are not here."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jobs.errors import ConfigurationError
from jobs.machine import accelerator
from jobs.machine.devices import choose_devices

CPU, MPS, CUDA = torch.device("cpu"), torch.device("mps:0"), torch.device("cuda:0")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that the machine has devices."""

    def of(*names: str) -> None:
        for module in ("jobs.machine.devices", "jobs.configuration.device_names"):
            monkeypatch.setattr(f"{module}.devices_here", lambda: names)

    return of


@pytest.mark.parametrize(
    ("value", "dtype", "names"),
    [
        ("auto", "float32", ["mps:0"]),
        ("auto", "float64", ["cpu"]),
        ("auto", "complex128", ["cpu"]),
        ("mps", "float32", ["mps:0"]),
        ("mps:0", "bfloat16", ["mps:0"]),
        ("cpu:2", "float64", ["cpu", "cpu"]),
    ],
)
def test_auto_takes_a_device_that_has_the_dtype(
    here: Any, value: str, dtype: str, names: list[str]
) -> None:
    here("mps:0")
    assert list(map(str, choose_devices(value, dtype))) == names


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("value", ["mps", "mps:0", ["mps:0"]])
def test_mps_has_no_double_precision(here: Any, value: str | list[str], dtype: str) -> None:
    here("mps:0")
    with pytest.raises(
        ConfigurationError, match=rf"^devices=mps:0 dtype={dtype}: mps has no 64-bit floating"
    ):
        choose_devices(value, dtype)


def test_a_kind_is_all_of_its_devices(here: Any) -> None:
    here("xpu:0", "xpu:1", "xpu:2")
    assert len(choose_devices("xpu", "float64")) == 3
    assert choose_devices(["xpu:2", "xpu:0"], "float64")[0] == torch.device("xpu:2")
    for value in ("cuda", "xpu:3", ["xpu:0", "xpu:3"]):
        with pytest.raises(
            ConfigurationError,
            match=r"no such device here; valid here are .*, xpu \(all\), xpu:0, xpu:1, xpu:2",
        ):
            choose_devices(value, "float64")


def test_mps_has_figures_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 1000)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 300)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 450)
    assert accelerator.device_memory(MPS) == (700, 1000)
    assert accelerator.allocated_memory(MPS) == 300
    assert accelerator.peak_allocated_memory(MPS) == 450
    assert not accelerator.reset_peak(MPS)
    assert not accelerator.copies_overlap(MPS)


def test_what_a_backend_lacks_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace())
    assert accelerator.device_name(MPS) == "mps:0"
    assert accelerator.hardware_name(MPS) == "mps:0"

    def lacking(*given: Any) -> None:
        raise NotImplementedError("not in this backend")

    for name in ("get_memory_info", "memory_stats"):
        monkeypatch.setattr(torch.accelerator, name, lacking)
    monkeypatch.setattr(torch, "Stream", lacking)
    monkeypatch.setattr(torch, "empty", lambda size, device: None)
    accelerator.has_statistics.cache_clear()
    device = torch.device("xpu:0")
    assert accelerator.device_memory(device) is None
    assert not accelerator.copies_overlap(device)
    assert not accelerator.has_statistics(device)
    assert accelerator.allocated_memory(device) == 0


@pytest.mark.parametrize(
    ("module", "has_released"),
    [
        (None, False),
        ({"is_initialized": lambda: False, "empty_cache": lambda: 1 / 0}, False),
        ({"is_initialized": lambda: True}, True),
        ({}, True),
    ],
)
def test_memory_is_released_where_it_was_used(
    monkeypatch: pytest.MonkeyPatch, module: dict[str, Any] | None, has_released: bool
) -> None:
    released = []
    if module is not None and has_released:
        module = {**module, "empty_cache": lambda: released.append(True)}
    kind = None if module is None else torch.device("xpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **options: kind)
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace(**module or {}))
    accelerator.release_cache()
    assert bool(released) == has_released


@pytest.mark.parametrize("value", ["3", "null", "true", "{a: 1}"])
def test_what_is_no_name_is_answered_with_what_is_here(
    resolved: Callable[..., Any], value: str
) -> None:
    with pytest.raises(
        ConfigurationError, match=r"neither a name nor a list .* here are auto, cpu"
    ):
        resolved("op=jacobian", "function=mlp", "function.n=3", f"devices={value}")


@pytest.mark.parametrize("is_available", [False, True])
def test_generators_are_seeded_as_torch_does(
    monkeypatch: pytest.MonkeyPatch, is_available: bool
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: is_available)
    torch.manual_seed(-1)
    expected = torch.rand(3)
    accelerator.seed_generators(-1)
    assert torch.equal(torch.rand(3), expected)


def test_generators_are_restored_without_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **options: None)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with accelerator.same_random_numbers():
        torch.manual_seed(2)
    assert torch.equal(torch.rand(3), expected)


def test_a_device_is_known_by_its_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(
        get_device_name=lambda device: "A GPU",
        get_device_properties=lambda device: SimpleNamespace(uuid="GPU-1"),
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    assert accelerator.device_name(CUDA) == "cuda:0 (A GPU)"
    assert accelerator.hardware_name(CUDA) == "GPU-1"
    assert accelerator.device_name(CPU) == f"cpu ({torch.get_num_threads()} threads)"


@pytest.mark.parametrize("error", [0, 1])
def test_the_driver_of_cuda_locks_pages(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    locked: list[tuple[int, int, int]] = []
    memory = torch.zeros(64, dtype=torch.uint8)

    def register(*given: Any) -> int:
        locked.append(given)
        return error

    def later(size: int, device: torch.device) -> None:
        asked.append(device)
        raise RuntimeError("the error of an earlier call")

    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "cudart", lambda: SimpleNamespace(cudaHostRegister=register))
    monkeypatch.setattr(torch, "zeros", later)
    accelerator.lock_pages(memory, MPS)
    assert not locked
    accelerator.lock_pages(memory, CUDA)
    assert locked == [(memory.data_ptr(), 64, 0)]
    assert asked == ([CUDA] if error else [])
