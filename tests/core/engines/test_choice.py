"""The engines that are available for an operation and a strategy."""

import pytest
import torch

from autodiff_core import blocks, engines
from tests.core.support.cases import draw


def test_the_names_of_engines():
    assert engines("jacobian", "vectorize") == ("plain", "captured", "compiled")
    assert engines("hessian", "forward-loop") == ("plain",)
    with pytest.raises(ValueError, match="vhp"):
        engines("vhp", "forward-mode")
    with pytest.raises(ValueError, match=r"engine='captured'.*auto, plain"):
        blocks(torch.sin, draw(2), operation="jacobian", engine="captured")
