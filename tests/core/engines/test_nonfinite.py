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
