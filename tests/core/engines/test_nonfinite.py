"""A finite derivative stays finite under every engine: masks select, 0 x inf is an error."""

import pytest
import torch

from autodiff_core import blocks

POINT = torch.tensor([1.0, 0.0, 2.0, 3.0], dtype=torch.float64)
EXPONENT = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64)
FUNCTIONS = {
    "product with a zero": ("hessian", lambda x: x.prod()),
    "cumulative product with a zero": ("jacobian", lambda x: x.cumprod(0)),
    "norm at zero": ("jacobian", lambda x: (x[1:2].norm() + x.sum())[None]),
    "power of zero": ("jacobian", lambda x: x**EXPONENT),
}


@pytest.mark.parametrize("engine", ["auto", "captured", "plain"])
@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_zeros_that_torch_masks_make_no_nan(name, strategy, engine):
    operation, function = FUNCTIONS[name]
    reference = getattr(torch.autograd.functional, operation)(function, POINT)
    assert torch.isfinite(reference).all()
    stream = blocks(function, POINT, operation=operation, strategy=strategy, engine=engine)
    torch.testing.assert_close(stream.matrix(), reference)


SELECTED = {
    "power of zero": ("hessian", lambda x: (x**EXPONENT).sum(), "vectorize"),
    "product with a zero": ("hessian", lambda x: x.prod(), "vectorize"),
    "cumulative product with a zero": ("jacobian", lambda x: x.cumprod(0), "vectorize"),
    "norm at zero": ("jacobian", lambda x: (x[1:2].norm() + x.sum())[None], "forward-mode"),
    "where": ("jacobian", lambda x: torch.where(x > 0, x.sqrt(), 0 * x), "forward-mode"),
    "relu": ("jacobian", lambda x: torch.relu(-1 / x), "forward-mode"),
    "hardtanh": ("jacobian", lambda x: torch.nn.functional.hardtanh(x.log()), "forward-mode"),
    "clamp": ("jacobian", lambda x: x.log().clamp(min=-1), "forward-mode"),
    "masked_fill": ("jacobian", lambda x: x.log().masked_fill(x <= 0, 0.0), "forward-mode"),
}


@pytest.mark.parametrize("name", SELECTED)
def test_a_recorded_mask_selects(name):
    operation, function, strategy = SELECTED[name]
    options = {"operation": operation, "strategy": strategy}
    plain = blocks(function, POINT, engine="plain", **options).matrix()
    stream = blocks(function, POINT, engine="captured", **options)
    torch.testing.assert_close(stream.matrix(), plain)
    assert torch.isfinite(plain).all()
    assert stream.engine == "captured"
