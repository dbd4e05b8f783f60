"""The generalized Gauss-Newton matrix, against explicit products of Jacobians and Hessians."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from autodiff_core import FallbackWarning, GaussNewton, ggn, ggn_blocks

STRATEGIES = ("vectorize", "reverse-loop", "forward-mode", "forward-loop")


def model(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(x @ weight) @ weight.T[:, :2] + bias.square()


generator = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(3, 4, generator=generator, dtype=torch.float64)
BIAS = torch.randn(2, generator=generator, dtype=torch.float64)
X = torch.randn(7, 3, generator=generator, dtype=torch.float64)
CLASSES = torch.arange(7) % 2
LOSSES = {
    "cross_entropy": lambda z: cross_entropy(z, CLASSES),
    "squares": lambda z: (z**2).sum(),
    # Not convex, and not a sum over samples.
    "coupled": lambda z: torch.sin(z).prod(dim=1).sum() * z.mean(),
}


def explicit(loss: str) -> Tensor:
    """Return JᵀHJ with J and H by `torch.func`."""
    z = model(WEIGHT, BIAS, X)
    parts = torch.func.jacrev(model, argnums=(0, 1))(WEIGHT, BIAS, X)
    jacobian = torch.cat([part.reshape(z.numel(), -1) for part in parts], 1)
    hessian = torch.func.hessian(LOSSES[loss])(z).reshape(z.numel(), z.numel())
    return jacobian.T @ hessian @ jacobian


def assembled(nested: tuple[tuple[Tensor, ...], ...]) -> Tensor:
    sizes = (12, 2)
    rows = [
        torch.cat([part.reshape(size, -1) for part in row], 1)
        for row, size in zip(nested, sizes, strict=True)
    ]
    return torch.cat(rows)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("with_data", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_it_is_the_explicit_product(loss: str, with_data: bool, strategy: str) -> None:
    options = {"strategy": strategy, "chunk_size": 5}
    if with_data:
        found = ggn(model, LOSSES[loss], (WEIGHT, BIAS), data=(X,), **options)
    else:
        found = ggn(lambda w, b: model(w, b, X), LOSSES[loss], (WEIGHT, BIAS), **options)
    torch.testing.assert_close(assembled(found), explicit(loss), rtol=1e-10, atol=1e-12)
    stream = ggn_blocks(model, LOSSES[loss], (WEIGHT, BIAS), data=(X,), strategy=strategy)
    v = [torch.ones_like(WEIGHT), -torch.ones_like(BIAS)]
    flat = torch.cat([part.reshape(-1) for part in v])
    for route in ("forward-loop", "reverse-loop"):
        product = torch.cat([part.reshape(-1) for part in stream.matrix.product(v, route)])
        torch.testing.assert_close(product, explicit(loss) @ flat, rtol=1e-10, atol=1e-12)


def test_samples_that_cannot_be_batched_are_differentiated_one_by_one() -> None:
    def branching(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        return model(weight, bias, x) if float(x.sum()) < 1e9 else x

    expected = ggn(model, LOSSES["squares"], (WEIGHT, BIAS), data=(X,))
    with pytest.warns(FallbackWarning, match="one sample at a time"):
        found = ggn(branching, LOSSES["squares"], (WEIGHT, BIAS), data=(X,))
    torch.testing.assert_close(assembled(found), assembled(expected))


def test_samples_that_depend_on_one_another_are_refused() -> None:
    def normalized(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        z = model(weight, bias, x)
        return z - z.mean(dim=0)

    with pytest.raises(ValueError, match="not those of all samples together"):
        ggn(normalized, LOSSES["squares"], (WEIGHT, BIAS), data=(X,))


def test_a_single_tensor_and_its_nesting() -> None:
    found = ggn(lambda w: w**2, lambda z: z.sum() ** 2, WEIGHT)
    jacobian = torch.diag(2 * WEIGHT.reshape(-1))
    expected = jacobian @ torch.full((12, 12), 2.0, dtype=torch.float64) @ jacobian
    torch.testing.assert_close(found, expected.reshape(3, 4, 3, 4))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rows", [[0, 5, 11, 13], [3, 4, 5], [12]])
@pytest.mark.parametrize("columns", [None, [2, 12], [1, 7]])
def test_any_rows_and_columns_are_those_of_the_explicit_product(
    rows: list[int], columns: list[int] | None, strategy: str
) -> None:
    loss, across = LOSSES["coupled"], torch.tensor(columns or range(14))
    matrix = GaussNewton(model, loss, (WEIGHT, BIAS), data=(X,), strategy=strategy)
    total = torch.ones(len(rows), len(across), dtype=torch.float64)
    numbers = None if columns is None else across
    matrix.add_rows(torch.tensor(rows), total, numbers)
    expected = explicit("coupled")[rows][:, across] + 1
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"strategy": "reverse-mode"}, ValueError, "valid are reverse-loop, vectorize"),
        ({"data": (X[:3],)}, ValueError, "same leading dimension over samples"),
        ({"inputs": WEIGHT.to(torch.complex128)}, TypeError, "valid are real tensors"),
        ({"func": lambda w, *_: (w, w)}, TypeError, "returned tuple; valid is one tensor"),
    ],
)
def test_invalid_arguments_are_refused(change: dict, error: type[Exception], message: str) -> None:
    arguments = {"func": lambda w, *_: w**2, "loss": torch.sum, "inputs": WEIGHT[0], **change}
    with pytest.raises(error, match=message):
        ggn(**arguments)
