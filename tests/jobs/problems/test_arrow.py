"""The arrow-shaped Hessian checked against its closed form."""

import pytest
import torch

from tests.jobs.support.problem_cases import assert_close, build, inputs

# A warning of torch: its first forward derivative imports a module with a deprecated call.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


def test_arrow_hessian_in_closed_form():
    problem = build("arrow", n=6)
    (x,) = inputs(problem)
    expected = torch.diag(2 * x[0] + 3 * x**2)
    expected[0], expected[:, 0] = 2 * x, 2 * x
    assert problem.scalar is not None
    assert_close(torch.func.hessian(problem.scalar)(x), expected)
