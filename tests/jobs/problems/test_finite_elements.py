"""The finite elements checked against the laws of elasticity."""

import torch

from tests.jobs.support.problem_cases import assert_close, build, captured, tensors


def test_finite_elements_resist_neither_motion_nor_rotation():
    problem = build("finite_elements", n=3)
    stiffness = captured(problem)["stiffness"]
    assert_close(stiffness, stiffness.T)
    nodes = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double()
    rotation = torch.stack([-nodes[:, 1], nodes[:, 0]], 1)
    for motion in (torch.ones(16, 2).double(), rotation):
        (forces,) = tensors(problem.function(motion))
        assert forces.abs().max() < 1e-12
    # Stretched by e in x with free sides: the only stress is e, in x.
    stretched = 1e-4 * torch.stack([nodes[:, 0], -0.3 * nodes[:, 1]], 1)
    (forces,) = tensors(problem.function(stretched))
    forces = forces.reshape(4, 4, 2)
    assert forces[:, :, 1].abs().max() < 1e-10
    assert_close(forces[-1, :, 0].sum(), 3e-4, 1e-3)
