"""Backward passes give what torch.autograd.grad gives."""

from __future__ import annotations

import pytest
import torch

from autodiff_core._tensors.backward_pass import backward_pass


def graph(dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    x, y, unused = (
        torch.linspace(1, 2, n, dtype=torch.float64).to(dtype).requires_grad_() for n in (3, 3, 2)
    )
    outputs = [x * y.sin(), (x**3).sum()]
    cotangents = [torch.linspace(-1, 1, 3, dtype=torch.float64).to(dtype), torch.tensor(2.0)]
    return outputs, [x, y, unused], [each.to(dtype) for each in cotangents]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128])
@pytest.mark.parametrize("create_graph", [False, True])
def test_as_torch_gives_it(dtype: torch.dtype, create_graph: bool) -> None:
    outputs, inputs, cotangents = graph(dtype)
    expected = torch.autograd.grad(
        outputs, inputs, cotangents, retain_graph=True, materialize_grads=True
    )
    # The graph is kept: a second pass gives the same.
    for _ in range(2):
        found = backward_pass(outputs, inputs, cotangents, create_graph=create_graph)
        assert all(each.requires_grad == create_graph for each in found)
        for each, other in zip(found, expected, strict=True):
            assert torch.equal(each.detach(), other)
    if create_graph:
        again = torch.autograd.grad(found[0].abs().sum(), inputs[1])[0]
        assert bool((again != 0).any())


def test_a_mode_sees_the_call() -> None:
    seen = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    outputs, inputs, cotangents = graph(torch.float64)
    with Watch():
        backward_pass(outputs, inputs, cotangents, create_graph=False)
    assert torch.autograd.grad in seen


def test_a_cotangent_of_another_shape_is_refused() -> None:
    outputs, inputs, cotangents = graph(torch.float64)
    with pytest.raises(RuntimeError, match="shape"):
        backward_pass(outputs[:1], inputs, [cotangents[0][:2]], create_graph=False)
