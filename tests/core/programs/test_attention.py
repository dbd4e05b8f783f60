"""The backward of torch's fused attention on the CPU, by the formulas of its parts."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from autodiff_core import blocks
from tests.core.support.cases import assert_same, draw

MASK = draw(5, 6, seed=3) > 0.3
MASK[:, 0] = True

OPTIONS = {
    "plain": {},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.7},
    "masked": {"attn_mask": MASK},
    "biased": {"attn_mask": draw(2, 1, 5, 6, seed=4), "scale": -0.3},
}


def attention(x, options):
    """Attend from 5 queries to 6 keys in 2 x 3 heads, of which no tensor is contiguous."""
    query, key = x[:180].reshape(5, 2, 3, 6).permute(1, 2, 0, 3), x[180:396].reshape(6, 2, 3, 6)
    value = x[396:].reshape(2, 3, 6, 6).mT
    return scaled_dot_product_attention(query, key.permute(1, 2, 0, 3), value, **options).sin()


@pytest.mark.parametrize("chunk_size", [7, 180])
@pytest.mark.parametrize("name", OPTIONS)
def test_rows_are_those_of_the_mathematical_kernel(name, chunk_size):
    x = draw(612) - 0.5
    stream = blocks(
        lambda x: attention(x, OPTIONS[name]),
        x,
        operation="jacobian",
        strategy="vectorize",
        engine="captured",
        chunk_size=chunk_size,
    )
    given = stream.matrix()
    assert stream.engine == "captured", stream.engine_refusal
    with sdpa_kernel(SDPBackend.MATH):
        expected = torch.func.jacrev(lambda x: attention(x, OPTIONS[name]))(x)
    assert_same(given, expected.reshape(180, 612), 1e-12)


def test_a_query_that_attends_to_nothing():
    x = draw(612) - 0.5
    mask = torch.zeros(5, 6, dtype=torch.bool)
    mask[1:, :4] = True
    options = {"attn_mask": mask}
    given, expected = (
        blocks(
            lambda x: attention(x, options),
            x,
            operation="jacobian",
            strategy="vectorize",
            engine=engine,
            chunk_size=45,
        ).matrix()
        for engine in ("captured", "plain")
    )
    torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12, equal_nan=True)
