"""The transformer block checked against that of torch.nn."""

import pytest
import torch

from tests.jobs.support.problem_cases import assert_close, build, captured, flat, flattened, loop


@pytest.mark.parametrize(("n", "width", "heads"), [(3, 4, 2), (1, 6, 3), (5, 8, 1), (2, 4, 4)])
def test_transformer_block_is_torchs_encoder_layer(n, width, heads):
    problem = build("transformer_block", n=n, width=width, heads=heads)
    layer = torch.nn.TransformerEncoderLayer(
        d_model=width,
        nhead=heads,
        dim_feedforward=4 * width,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
        dtype=torch.float64,
    ).eval()
    layer.load_state_dict(captured(problem)["weights"])
    func, x = flat(problem, problem.function)
    reference = flattened(lambda tokens: layer(tokens[None])[0], [(n, width)])
    assert_close(func(x), reference(x).detach())
    assert_close(loop(func, x), loop(reference, x))
