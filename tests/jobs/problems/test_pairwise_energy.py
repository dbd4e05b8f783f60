"""The energy of pairs of particles checked against its closed form."""

import numpy as np
import pytest

from tests.jobs.support.problem_cases import HESSIAN_ENGINES, assert_close, build, flat


@pytest.mark.parametrize("n", [2, 9])
def test_pairwise_energy_hessian_in_closed_form(n):
    problem = build("pairwise_energy", n=n)
    x = problem.point["positions"].numpy()
    energy, hessian = 0.0, np.zeros((n, 3, n, 3))
    for i in range(n):
        for j in range(i):
            d = x[i] - x[j]
            s = d @ d
            energy += 4 * (s**-6 - s**-3)
            first, second = 4 * (-6 * s**-7 + 3 * s**-4), 4 * (42 * s**-8 - 12 * s**-5)
            block = 4 * second * np.outer(d, d) + 2 * first * np.eye(3)
            hessian[i, :, i] += block
            hessian[j, :, j] += block
            hessian[i, :, j] -= block
            hessian[j, :, i] -= block
    func, point = flat(problem, problem.scalar)
    computed = HESSIAN_ENGINES["loop"](func, point)
    assert_close(func(point), np.array([energy]))
    assert_close(computed, hessian.reshape(3 * n, 3 * n))
    # Translation invariance: moving all particles together changes no force.
    assert computed.reshape(3 * n, n, 3).sum(1).abs().max() < 1e-12 * computed.abs().max()
