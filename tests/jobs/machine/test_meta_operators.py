"""Shapes of sums and products without numbers are those of torch's references."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
import torch

from jobs.machine.meta_operators import quicken_meta_operators

OPERATORS = ("add", "sub", "mul", "div")
OPERANDS = {
    "vector": torch.zeros(3),
    "double": torch.zeros(3, dtype=torch.float64),
    "row": torch.zeros(1, 3),
    "column": torch.zeros(2, 1),
    "matrix": torch.zeros(2, 3),
    "transposed": torch.zeros(3, 2).T,
    "block": torch.zeros(4, 2, 3),
    "permuted block": torch.zeros(2, 3, 4).permute(2, 0, 1),
    "reversed block": torch.zeros(3, 2, 4).permute(2, 1, 0),
    "column of blocks": torch.zeros(4, 1, 1),
    "row of blocks": torch.zeros(3, 2).T,
    "expanded block": torch.zeros(3, 2).T.expand(4, 2, 3),
    "every second": torch.zeros(2, 6)[:, ::2],
    "expanded": torch.zeros(3, 1).T.expand(2, 3),
    "number tensor": torch.zeros(()),
    "double number tensor": torch.zeros((), dtype=torch.float64),
    "empty": torch.zeros(0, 1),
    "integers": torch.zeros(3, dtype=torch.int64),
    "half": torch.zeros(1, 3, dtype=torch.bfloat16),
    "complex": torch.zeros(3, dtype=torch.complex64),
    "integer": 2,
    "float": 0.5,
    "complex number": 1j,
}


def on_meta(operand: Any) -> Any:
    if not isinstance(operand, torch.Tensor):
        return operand
    shape, strides = operand.shape, operand.stride()
    return torch.empty_strided(shape, strides, dtype=operand.dtype, device="meta")


def pairs() -> list[tuple[Any, Any]]:
    """Return operands of which one at least is a tensor, and which may be combined."""
    found = []
    for operands in itertools.product(OPERANDS.values(), repeat=2):
        shapes = [each.shape for each in operands if isinstance(each, torch.Tensor)]
        with contextlib.suppress(RuntimeError):
            torch.broadcast_shapes(*shapes)
            found += [operands] if shapes else []
    return found


@pytest.mark.parametrize("name", OPERATORS)
def test_results_without_numbers_are_like_those_with_numbers(name: str) -> None:
    quicken_meta_operators()
    operator = getattr(torch, name)
    for one, other in pairs():
        expected, found = operator(one, other), operator(on_meta(one), on_meta(other))
        assert found.is_meta
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert found.stride() == expected.stride() or not found.numel()


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_the_order_in_memory_is_that_of_torch_where_operands_are_expanded(order: Any) -> None:
    quicken_meta_operators()
    one = torch.zeros(3, 3, 3).permute(order)[:, :1]
    for other in (torch.zeros(2, 1), torch.zeros(1, 2).T, torch.zeros(2, 3), torch.zeros(3, 2).T):
        for operands in ((one, other), (other, one)):
            found = torch.add(*map(on_meta, operands))
            assert found.stride() == torch.add(*operands).stride()


@pytest.mark.parametrize("name", OPERATORS)
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    quicken_meta_operators()
    with pytest.raises(RuntimeError, match=r"size|shape|broadcast"):
        getattr(torch, name)(torch.empty(2, device="meta"), torch.empty(3, device="meta"))


@pytest.mark.parametrize("name", OPERATORS)
def test_what_works_in_place_returns_its_first_operand_or_refuses(name: str) -> None:
    quicken_meta_operators()
    for one, other in pairs():
        if not isinstance(one, torch.Tensor):
            continue
        first = on_meta(one)
        try:
            getattr(one.clone(), f"{name}_")(other)
        except RuntimeError as error:
            # The references let some results through that have no place in integers.
            if "shape" in str(error):
                with pytest.raises(RuntimeError):
                    getattr(first, f"{name}_")(on_meta(other))
        else:
            found = getattr(first, f"{name}_")(on_meta(other))
            assert found is first
            assert (found.shape, found.dtype) == (one.shape, one.dtype)


IN_PLACE = {
    "sigmoid": (),
    "tanh": (),
    "exp": (),
    "neg": (),
    "relu": (),
    "clamp": (0.0, 1),
    "clamp_min": (torch.zeros(3),),
    "pow": (2,),
    "lerp": (torch.ones(3), 0.5),
    "addcmul": (torch.ones(1, 3), torch.ones(2, 1)),
    "atan2": (torch.ones(3),),
    "fmod": (torch.ones((), dtype=torch.float64),),
}


@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 3)])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.complex64]
)
@pytest.mark.parametrize("name", IN_PLACE)
def test_pointwise_operators_in_place_are_as_those_with_numbers(
    name: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    quicken_meta_operators()
    tensor, operands = torch.zeros(shape, dtype=dtype), IN_PLACE[name]
    first = on_meta(tensor)
    try:
        getattr(tensor, f"{name}_")(*operands)
    except (RuntimeError, TypeError) as error:
        if "shape" in str(error):
            with pytest.raises(RuntimeError):
                getattr(first, f"{name}_")(*map(on_meta, operands))
    else:
        found = getattr(first, f"{name}_")(*map(on_meta, operands))
        assert found is first
        assert (found.shape, found.dtype) == (tensor.shape, tensor.dtype)
