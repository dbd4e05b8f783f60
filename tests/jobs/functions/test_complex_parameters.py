"""Modules with complex parameters, or with complex numbers inside, against torch's real ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import jobs
from jobs.errors import JobError

X = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
BLOCKS, DIAGONAL = {"structure": "blocks"}, {"structure": "diagonal"}


def filtered(x: Tensor, shift: Tensor, parts: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(x) * torch.view_as_complex(parts), n=6) + shift.sin()


class Filter(nn.Module):
    """A spectral filter whose factors are complex parameters, after one real number."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        # So few numbers before the complex ones that these begin at an odd place.
        self.shift = nn.Parameter(torch.randn(1, generator=generator).double())
        self.factors = nn.Parameter(torch.randn(4, dtype=torch.complex128, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return filtered(x, self.shift, torch.view_as_real(self.factors))


class RealFilter(nn.Module):
    """The same with real parameters: complex numbers are inside only."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(Filter().shift.detach())
        self.parts = nn.Parameter(torch.view_as_real(Filter().factors.detach()))

    def forward(self, x: Tensor) -> Tensor:
        return filtered(x, self.shift, self.parts)


class Spectrum(nn.Module):
    """A module that returns complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.ones(4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x) * self.factors


def compute(op: str, module: nn.Module, runs: Path, **options: Any) -> Any:
    point = {"x": X, "label": Y} if "loss" in options else {"x": X}
    return jobs.compute(op, module, point, wrt="params", runs=runs, progress="quiet", **options)


def real_jacobian() -> Tensor:
    """Return the Jacobian by the shift and, apart, by real and imaginary parts of the factors."""
    own = RealFilter()
    given = (own.shift.detach(), own.parts.detach())
    parts = torch.autograd.functional.jacobian(lambda *each: filtered(X, *each), given)
    return torch.cat([part.reshape(30, -1) for part in parts], dim=1)


def test_a_jacobian_by_real_and_complex_parameters_is_verified(tmp_path: Path) -> None:
    result = compute("jacobian", Filter(), tmp_path)
    assert result.verdict.state == "verified"
    # dy/d(Re w) + i dy/d(Im w).
    expected = real_jacobian()
    by_factors = torch.view_as_complex(expected[:, 1:].reshape(30, 4, 2).contiguous())
    np.testing.assert_allclose(result[...][:, :1], expected[:, :1], atol=1e-13)
    np.testing.assert_allclose(result[...][:, 1:], by_factors, atol=1e-13)


@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("ggn", {"loss": "mse"}),
        ("ggn", {"loss": "mse", **DIAGONAL}),
        ("ggn", {"loss": "mse", **BLOCKS}),
        ("fisher", {"loss": "mse"}),
        ("fisher", {"loss": "mse", "fisher": {"kind": "true"}}),
        ("hessian", {"loss": "mse", **DIAGONAL}),
        ("hessian", {"loss": "mse", **BLOCKS}),
    ],
)
def test_matrices_by_real_tensors_name_the_complex_one(
    op: str, options: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=r"factors is complex, and the matrix is one by real"):
        compute(op, Filter(), tmp_path, **options)


def test_a_curvature_matrix_by_complex_inputs_is_refused(tmp_path: Path) -> None:
    point = {"z": torch.randn(3, dtype=torch.complex128), "label": Y[0, :3]}
    with pytest.raises(JobError, match="op=ggn: z is complex"):
        jobs.compute("ggn", lambda z: z.real * z.imag, point, loss="mse", name="z", runs=tmp_path)


def test_complex_outputs_have_no_curvature_matrix(tmp_path: Path) -> None:
    def loss(output: Tensor, label: Tensor) -> Tensor:
        return (output - torch.fft.rfft(label)).abs().square().mean()

    with pytest.raises(JobError, match=r"complex128; valid is one tensor of real"):
        compute("ggn", Spectrum(), tmp_path, loss=loss)


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
def test_complex_numbers_inside_a_network_do_no_harm(strategy: str, tmp_path: Path) -> None:
    result = compute("ggn", RealFilter(), tmp_path, loss="mse", strategy=strategy)
    jacobian = real_jacobian()
    np.testing.assert_allclose(result[...], 2 / 30 * jacobian.T @ jacobian, atol=1e-13)
    assert result.verdict.state == "verified"


def test_complex_parameters_without_a_gradient_are_constants(tmp_path: Path) -> None:
    module = Filter()
    module.factors.requires_grad_(False)
    result = compute("ggn", module, tmp_path, loss="mse")
    by_shift = real_jacobian()[:, :1]
    np.testing.assert_allclose(result[...], 2 / 30 * by_shift.T @ by_shift, atol=1e-13)
