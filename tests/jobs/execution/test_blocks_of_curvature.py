"""Diagonal blocks of curvature matrices and losses: those of explicit matrices."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacrev

import jobs
from outputs import Result, VerificationState

STRATEGIES = ["reverse-loop", "vectorize", "forward-loop", "forward-mode"]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


def curvature(op: str, net: Network, x: Tensor, label: Tensor) -> Tensor:
    """Return the matrix of the cross entropy by explicit Jacobians and Hessians."""
    names, values = zip(*((n, p.detach()) for n, p in net.named_parameters()), strict=True)

    def outputs(*values: Tensor) -> Tensor:
        return functional_call(net, dict(zip(names, values, strict=True)), (x,))

    def losses(*values: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs(*values), label, reduction="none")

    def flat(function: Callable[..., Tensor]) -> Tensor:
        parts = jacrev(function, argnums=tuple(range(len(values))))(*values)
        sizes = [value.numel() for value in values]
        return torch.cat([p.reshape(-1, n) for p, n in zip(parts, sizes, strict=True)], dim=1)

    if op == "fisher":
        return flat(losses).T @ flat(losses) / len(x)
    if op == "hessian":
        shapes = [value.shape for value in values]

        def of_all(entries: Tensor) -> Tensor:
            parts = entries.split([shape.numel() for shape in shapes])
            return losses(*(p.reshape(s) for p, s in zip(parts, shapes, strict=True))).mean()

        return hessian(of_all)(torch.cat([value.reshape(-1) for value in values]))
    z = outputs(*values)
    of_loss = hessian(lambda z: nn.functional.cross_entropy(z, label))(z)
    return flat(outputs).T @ of_loss.reshape(z.numel(), -1) @ flat(outputs)


@pytest.mark.parametrize(
    ("op", "batch_size", "strategy"),
    [
        *(("ggn", 3, strategy) for strategy in STRATEGIES),
        *(("fisher", None, strategy) for strategy in ("vectorize", "forward-loop")),
        *(("hessian", 3, strategy) for strategy in ("reverse-loop", "forward-mode")),
    ],
)
def test_they_are_those_of_the_explicit_matrix(
    op: str, batch_size: int | None, strategy: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net, x, label = Network().double(), torch.randn(7, 3).double(), torch.arange(7) % 2
    result = jobs.compute(
        op,
        net,
        {"x": x, "label": label},
        loss={"kind": "cross_entropy", "batch_size": batch_size},
        wrt="params",
        structure={"kind": "blocks", "groups": ["first.*", "second.weight", "second.bias"]},
        strategy=strategy,
        chunk_size=5,
        runs=tmp_path,
        progress="quiet",
    )
    assert isinstance(result, Result)
    with result:
        expected = curvature(op, net, x, label)
        for name, lines in (("first.bias", slice(16)), ("second.weight", slice(16, 24))):
            found = result.block_of(name)[:]
            np.testing.assert_allclose(found, expected[lines, lines], rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(
            result.block_of("second.bias")[:], expected[24:, 24:], atol=1e-14
        )
        assert result.verdict.state is VerificationState.VERIFIED
        if op != "hessian":
            quotient = result.execution["verification"]["smallest_rayleigh_quotient"]
            assert quotient >= 0
