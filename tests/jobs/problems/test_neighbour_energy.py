"""The energy of neighbours checked against a sum over the nearest."""

import torch

from tests.jobs.support.problem_cases import assert_close, build, inputs


def test_neighbour_energy_sums_over_twelve_nearest_neighbours():
    problem = build("neighbour_energy", n=3)
    (positions,) = inputs(problem)
    edge = 3 * 2 ** (1 / 6) * 2**0.5
    between = positions[:, None] - positions
    between -= edge * torch.round(between / edge)
    distances = between.norm(dim=2) + 99 * torch.eye(len(positions))
    nearest = distances.sort(1).values[:, :12]
    # Atoms are displaced by at most 0.05 per coordinate; second neighbours are 1.4 times as far.
    assert nearest.max() < 1.3 < distances.sort(1).values[:, 12].min()
    expected = (4 * (nearest**-12 - nearest**-6)).sum() / 2
    assert_close(problem.function(positions), expected)


def test_neighbour_energy_knows_no_place():
    problem = build("neighbour_energy")
    (positions,) = inputs(problem)
    gradient = torch.func.grad(problem.function)(positions)
    assert gradient.sum(0).abs().max() < 1e-9
