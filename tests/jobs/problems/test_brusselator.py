"""The Brusselator checked against its stencil and its benchmark state."""

import numpy as np
import torch

from tests.jobs.support.problem_cases import assert_close, build, flat, loop


def test_brusselator_rates_and_jacobian_by_the_stencil():
    n = 5
    problem = build("brusselator", n=n)
    u, v = problem.point["concentrations"].numpy()
    diffusion = 0.1 * n**2
    rates, jacobian = np.zeros((2, n, n)), np.zeros((2, n, n, 2, n, n))
    for i in range(n):
        for j in range(n):
            neighbours = [((i + 1) % n, j), (i - 1, j), (i, (j + 1) % n), (i, j - 1)]
            for s, c in enumerate((u, v)):
                rates[s, i, j] = diffusion * (sum(c[site] for site in neighbours) - 4 * c[i, j])
                for a, b in neighbours:
                    jacobian[s, i, j, s, a, b] = diffusion
                jacobian[s, i, j, s, i, j] = -4 * diffusion
            a, b = u[i, j], v[i, j]
            rates[:, i, j] += [1 + a * a * b - 4.4 * a, 3.4 * a - a * a * b]
            jacobian[0, i, j, :, i, j] += [2 * a * b - 4.4, a * a]
            jacobian[1, i, j, :, i, j] += [3.4 - 2 * a * b, -a * a]
    func, x = flat(problem, problem.function)
    assert_close(func(x), rates.ravel())
    assert_close(loop(func, x), jacobian.reshape(2 * n * n, 2 * n * n))


def test_brusselator_starts_at_the_benchmark_state():
    u, v = build("brusselator").point["concentrations"]
    assert_close(u, torch.tensor([0, 22 * 0.1875**1.5, 2.75, 22 * 0.1875**1.5]).expand(4, 4), 1e-7)
    assert_close(v, u.T * 27 / 22)
