"""Functions whose tensors are on several devices are differentiated where their tensors are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call

from autodiff_core import blocks, engines
from jobs.errors import ConfigurationError
from outputs import verify_result
from tests.accelerator.on_device.conftest import KIND
from tests.core.support.cases import STRATEGIES

SPREAD = """
import torch

class Spread(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(3, 4)
        self.middle = torch.nn.Linear(4, 5)
        self.last = torch.nn.Linear(5, 2)

    def forward(self, x):
        for layer in (self.first, self.middle, self.last):
            x = torch.tanh(layer(x.to(layer.weight.device)))
        return x

def here(): return Spread().double()

def on(first, middle, last):
    module = here()
    module.first.to(first)
    module.middle.to(middle)
    module.last.to(last)
    return module

def devices(): return on("KIND:0", "KIND:1", "cpu")
def reversed_devices(): return on("cpu", "KIND:1", "KIND:0")
def meta(): return on("cpu", "cpu", "meta")
def second(): return torch.linspace(0.1, 1, 3, dtype=torch.float64)
""".replace("KIND", KIND)
ON_DEVICES = ("function=python", "function.factory=true", "op=jacobian")


@pytest.fixture
def own(directory: Path, second: torch.device) -> dict[str, Any]:
    (directory / "own.py").write_text(SPREAD)
    np.save("x.npy", np.linspace(0.1, 1, 3))
    space: dict[str, Any] = {}
    exec(SPREAD, space)
    return space


@pytest.mark.parametrize("operation", ["jacobian", "hessian"])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("what", ["inputs", "parameters"])
def test_derivatives_are_those_on_one_device(
    own: dict[str, Any], operation: str, strategy: str, what: str
) -> None:
    x = torch.linspace(0.1, 1, 3, dtype=torch.float64)

    def function(module: torch.nn.Module) -> Callable[..., torch.Tensor]:
        names = [name for name, _ in module.named_parameters()]

        def of(*given: torch.Tensor) -> torch.Tensor:
            if what == "inputs":
                out = module(given[0])
            else:
                out = functional_call(module, dict(zip(names, given, strict=True)), (x,))
            return out.square().sum() if operation == "hessian" else out

        return of

    def point(module: torch.nn.Module, place: str) -> tuple[torch.Tensor, ...]:
        if what == "inputs":
            return (x.to(place),)
        return tuple(each.detach() for each in module.parameters())

    plain, spread = own["here"](), own["devices"]()
    options: dict[str, Any] = {"operation": operation, "strategy": strategy}
    expected = blocks(function(plain), point(plain, "cpu"), engine="plain", **options).matrix()
    for engine in engines(operation, strategy)[:2]:
        given = point(spread, f"{KIND}:0")
        stream = blocks(function(spread), given, engine=engine, chunk_size=2, **options)
        torch.testing.assert_close(stream.matrix().cpu(), expected, rtol=1e-12, atol=1e-14)
        if engine == "captured":
            assert stream.engine == "plain"
            assert stream.engine_refusal


@pytest.mark.parametrize(
    ("target", "strategy", "wrt"),
    [
        ("devices", "vectorize", "inputs"),
        ("devices", "forward-mode", "params"),
        ("reversed_devices", "vectorize", "params"),
        ("reversed_devices", "forward-mode", "inputs"),
    ],
)
def test_a_job_leaves_a_module_where_it_is(
    own: dict[str, Any], run_job: Callable[..., Any], target: str, strategy: str, wrt: str
) -> None:
    options = (*ON_DEVICES, f"strategy={strategy}", f"wrt={wrt}", "inputs=numpy", "chunk_size=1")
    options = (*options, "inputs.path=x.npy", "output.dtype=float64")
    there = run_job(*options, f"function.target=./own.py:{target}", f"devices={KIND}:0")
    here = run_job(*options, "function.target=./own.py:here", "devices=cpu", "runs=here")
    assert np.allclose(there[:], here[:], rtol=1e-10, atol=1e-14)
    assert there.verdict.state == here.verdict.state
    assert verify_result(there.path).ok


@pytest.mark.parametrize(
    ("target", "devices", "message"),
    [
        ("meta", "cpu", "on the device meta, without values"),
        ("devices", f"{KIND}:1", ""),
    ],
)
def test_what_is_not_there_is_refused(
    own: dict[str, Any], resolved: Callable[..., Any], target: str, devices: str, message: str
) -> None:
    options = (*ON_DEVICES, "inputs=numpy", "inputs.path=x.npy", f"devices={devices}")
    options = (*options, f"function.target=./own.py:{target}")
    if not message:
        assert resolved(*options).device == torch.device(devices)
        return
    with pytest.raises(ConfigurationError, match=message):
        resolved(*options)


def test_the_inputs_are_on_a_device_of_the_module(
    own: dict[str, Any], resolved: Callable[..., Any]
) -> None:
    options = (*ON_DEVICES, "inputs=numpy", "inputs.path=x.npy", "function.target=./own.py:only")
    with open("own.py", "a") as file:
        file.write(f'def only(): return on("{KIND}:0", "{KIND}:1", "{KIND}:1")\n')
    with pytest.raises(ConfigurationError, match=f"its tensors are on {KIND}:0, {KIND}:1; valid"):
        resolved(*options, "devices=cpu")
