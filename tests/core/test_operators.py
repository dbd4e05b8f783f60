"""Operators of common models: all strategies agree with each other and with torch."""

from collections.abc import Callable

import pytest
import torch
import torch.autograd.functional as reference
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, linalg

from autodiff_core import MissingForwardDerivativeError, hessian, jacobian

GENERATOR = torch.Generator().manual_seed(0)
POINT = 0.2 + torch.rand(6, dtype=torch.float64, generator=GENERATOR)
TARGET = torch.rand(6, dtype=torch.float64, generator=GENERATOR)
MATRIX = torch.randn(3, 6, dtype=torch.float64, generator=GENERATOR)
LABELS = torch.tensor([0, 1, 1])
INDEX = torch.tensor([0, 1, 1, 2, 2, 0])


def square(x: Tensor) -> Tensor:
    """Return a well-conditioned 2 x 2 matrix of the first entries."""
    return x[:4].reshape(2, 2) + 2 * torch.eye(2, dtype=x.dtype)


def symmetric(x: Tensor) -> Tensor:
    half = square(x)
    return half @ half.T


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mse_loss": lambda x: F.mse_loss(x.sin(), TARGET),
    "smooth_l1_loss": lambda x: F.smooth_l1_loss(x**2, TARGET),
    "huber_loss": lambda x: F.huber_loss(x**2, TARGET),
    "cross_entropy": lambda x: F.cross_entropy(x.reshape(3, 2) ** 2, LABELS),
    "nll_loss": lambda x: F.nll_loss(F.log_softmax(x.reshape(3, 2) ** 2, 1), LABELS),
    "binary_cross_entropy": lambda x: F.binary_cross_entropy(x.sigmoid(), TARGET),
    "logits": lambda x: F.binary_cross_entropy_with_logits(x**2, TARGET),
    "kl_div": lambda x: F.kl_div(F.log_softmax(x**2, 0), TARGET.softmax(0), reduction="sum"),
    "gaussian_nll_loss": lambda x: F.gaussian_nll_loss(x**2, TARGET, x.exp()),
    "triplet": lambda x: F.triplet_margin_loss(x[:2] ** 2, x[2:4], x[4:]),
    "gelu": lambda x: F.gelu(MATRIX @ x),
    "silu": lambda x: F.silu(MATRIX @ x),
    "softplus": lambda x: F.softplus(MATRIX @ x),
    "elu": lambda x: F.elu(MATRIX @ x),
    "layer_norm": lambda x: F.layer_norm(x**2, (6,)),
    "group_norm": lambda x: F.group_norm(x.reshape(1, 6, 1) ** 2, 2),
    "conv1d": lambda x: F.conv1d(x.reshape(1, 1, 6), MATRIX[:, :3].reshape(3, 1, 3)),
    "interpolate": lambda x: F.interpolate(x.reshape(1, 1, 6), scale_factor=2, mode="linear"),
    "avg_pool1d": lambda x: F.avg_pool1d(x.reshape(1, 1, 6), 2),
    "logsumexp": lambda x: torch.logsumexp(MATRIX @ x, 0),
    "einsum": lambda x: torch.einsum("i,j,ij->j", x, x, MATRIX.T @ MATRIX),
    "gather": lambda x: x[INDEX] ** 2,
    "index_add": lambda x: torch.zeros(3, dtype=x.dtype).index_add(0, INDEX, x**3),
    "sort": lambda x: x.sort()[0] * TARGET,
    "cumsum, cumprod": lambda x: x.cumsum(0).cumprod(0),
    "fft": lambda x: torch.fft.fft(x).abs(),
    "norm": lambda x: x.norm() ** 3,
    "det": lambda x: linalg.det(square(x)),
    "slogdet": lambda x: linalg.slogdet(square(x))[1],
    "inv": lambda x: linalg.inv(square(x)),
    "solve": lambda x: linalg.solve(square(x), x[4:]),
    "cholesky": lambda x: linalg.cholesky(symmetric(x)),
    "eigvalsh": lambda x: linalg.eigvalsh(symmetric(x)),
    "svdvals": lambda x: linalg.svdvals(square(x)),
    "qr": lambda x: linalg.qr(square(x))[1],
    "matrix_exp": lambda x: linalg.matrix_exp(square(x)),
    "pinv": lambda x: linalg.pinv(MATRIX[:, :2] * x[:2]),
    "lstsq": lambda x: linalg.lstsq(MATRIX[:, :2] * x[:2], MATRIX[:, 2]).solution,
    "triangular solve": lambda x: linalg.solve_triangular(
        square(x).tril(), x[4:, None], upper=False
    ),
}
NO_FORWARD_OVER_REVERSE = {"mse_loss", "huber_loss"}
STRATEGIES = ["vectorize", "forward-loop", "forward-mode"]


def arguments(name: str, strategy: str) -> dict[str, object]:
    if strategy == "forward-mode":
        return {name: "forward-mode", "vectorize": True}
    return {name: strategy}


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_jacobian(name: str, strategy: str) -> None:
    func = FUNCTIONS[name]
    given = jacobian(func, POINT, **arguments("strategy", strategy))  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(given, reference.jacobian(func, POINT), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_hessian(name: str, strategy: str) -> None:
    def func(x: Tensor) -> Tensor:
        return (FUNCTIONS[name](x) ** 2).sum()

    options = arguments("outer_jacobian_strategy", strategy)
    if name in NO_FORWARD_OVER_REVERSE and strategy.startswith("forward"):
        with pytest.raises(MissingForwardDerivativeError, match="'reverse-loop' and 'vectorize'"):
            hessian(func, POINT, **options)  # pyright: ignore[reportArgumentType]
        return
    given = hessian(func, POINT, **options)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(given, reference.hessian(func, POINT), rtol=1e-9, atol=1e-10)
