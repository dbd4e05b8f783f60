"""What the check evaluates in double precision does not stay in memory while the job runs."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from autodiff_core import blocks
from jobs.execution import local_source
from outputs import Result

NETWORK = """
import torch

WEIGHTS = torch.randn(3, 400, 400, generator=torch.Generator().manual_seed(0)) / 20

def network(x):
    for weight in WEIGHTS:
        x = torch.tanh(weight @ x)
    return x
def point(): return torch.linspace(0, 1, 400)
"""


def _large_in_double() -> int:
    objects = [each for each in gc.get_objects() if type(each) is torch.Tensor]
    return sum(each.dtype == torch.float64 and each.numel() >= 400 * 400 for each in objects)


def test_weights_in_double_precision_are_freed_before_the_run(
    directory: Path, run_job: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "networks.py").write_text(NETWORK)
    found: list[int] = []
    compute = local_source.compute_block

    def computed(*given: object) -> object:
        found.append(_large_in_double())
        return compute(*given)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(local_source, "compute_block", computed)
    target = ("function.target=networks:network", "function.point=networks:point")
    before = _large_in_double()
    gc.disable()
    try:
        result = run_job("op=jacobian", "function=python", *target, "dtype=float32")
    finally:
        gc.enable()
    assert found
    assert set(found) == {before}
    assert result.execution["differences"]


@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-loop", "forward-mode"])
def test_a_released_linearization_holds_no_graph(strategy: str) -> None:
    x = torch.linspace(0.1, 1, 4, dtype=torch.float64)
    stream = blocks(torch.sin, x, operation="jacobian", strategy=strategy)
    torch.testing.assert_close(stream.block(0, 1).values.squeeze(), x.cos() * torch.eye(4)[0])
    linearization = stream.linearized.linearization
    linearization.release()
    assert all(output.grad_fn is None for output in linearization.outputs)
