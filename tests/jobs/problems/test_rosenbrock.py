"""The Rosenbrock function checked against its closed forms."""

import numpy as np
import pytest
import torch

from tests.jobs.support.problem_cases import HESSIAN_ENGINES, assert_close, build, flat, gradient


@pytest.mark.parametrize("n", [2, 3, 8])
def test_rosenbrock_derivatives_in_closed_form(n):
    problem = build("rosenbrock", n=n)
    x = problem.point["x"].numpy()
    assert_close(x, np.where(np.arange(n) % 2, 1.0, -1.2))
    value, slope, hessian = 0.0, np.zeros(n), np.zeros((n, n))
    for i in range(n - 1):
        gap = x[i + 1] - x[i] ** 2
        value += 100 * gap**2 + (1 - x[i]) ** 2
        slope[i] += -400 * x[i] * gap - 2 * (1 - x[i])
        slope[i + 1] += 200 * gap
        hessian[i, i] += 1200 * x[i] ** 2 - 400 * x[i + 1] + 2
        hessian[i + 1, i + 1] += 200
        hessian[i, i + 1] = hessian[i + 1, i] = -400 * x[i]
    func, point = flat(problem, problem.scalar)
    assert_close(func(point), np.array([value]))
    assert_close(gradient(func, point).detach(), slope)
    assert_close(HESSIAN_ENGINES["loop"](func, point), hessian)


def test_rosenbrock_has_its_minimum_at_ones():
    func, x = flat(problem := build("rosenbrock"), problem.scalar)
    assert func(torch.ones_like(x)) == 0
    assert not gradient(func, torch.ones_like(x)).any()
