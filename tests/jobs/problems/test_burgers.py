"""The residual of Burgers' equation checked against loops."""

import numpy as np
import torch

from tests.jobs.support.problem_cases import assert_close, build, captured


def test_burgers_residual_by_loops():
    problem = build("burgers", n=5)
    old, h = captured(problem)["old"], 1 / 6
    assert_close(old, np.sin(np.pi * h * np.arange(1, 6)))
    u = np.concatenate([[0], np.linspace(0.3, 0.9, 5), [0]])
    expected = [
        u[i]
        - float(old[i - 1])
        + h
        * (u[i] * (u[i + 1] - u[i - 1]) / (2 * h) - 0.01 * (u[i + 1] - 2 * u[i] + u[i - 1]) / h**2)
        for i in range(1, 6)
    ]
    assert_close(problem.function(torch.from_numpy(u[1:-1].copy())), expected)
