"""The residuals of a Gaussian process checked against numpy."""

import math

import numpy as np
import pytest
import torch

from tests.jobs.support.problem_cases import (
    assert_close,
    batched,
    build,
    captured,
    flat,
    inputs,
)


def test_gp_residuals_by_numpy():
    problem = build("gp_residual")
    z = problem.point["inducing_points"].numpy()
    scale = math.exp(problem.point["log_lengthscale"].item())
    constants = {name: t.numpy() for name, t in captured(problem).items()}

    def kernel(a, b):
        return np.exp(-((a[:, None] - b[None, :]) ** 2) / (2 * scale**2))

    covariance = kernel(z, z) + 1e-6 * np.eye(len(z))
    projection = kernel(constants["data"], z) @ np.linalg.inv(covariance)
    residuals = constants["targets"] - projection @ constants["inducing_values"]
    assert scale == pytest.approx(0.75)
    assert_close(problem.function(*inputs(problem)), residuals)
    assert problem.scalar is not None
    assert_close(problem.scalar(*inputs(problem)), residuals @ residuals / 2)


def test_gp_residual_stays_well_conditioned_with_many_inducing_points():
    single, double = (
        batched(*flat(problem, problem.function))
        for dtype in (torch.float32, torch.float64)
        for problem in [build("gp_residual", dtype, n=30, inducing=200)]
    )
    assert 0.1 < double.abs().max() < 10
    assert_close(single, double, 1e-3)
