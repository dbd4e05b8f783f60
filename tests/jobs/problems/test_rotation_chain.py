"""The chain of rotations checked by turning one point at a time."""

import math

import numpy as np
import pytest
import torch

from tests.jobs.support.problem_cases import (
    assert_close,
    build,
    flat,
    inputs,
    loop,
)


def rotation_matrix(axis: str, angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return {
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


@pytest.mark.parametrize("n", [1, 14, 31])
def test_rotation_chain_by_turning_one_point_at_a_time(n):
    problem = build("rotation_chain", n=n)
    angles = problem.point["angles"].tolist()
    expected = []
    for i in range(n):
        distance = (i + 0.5) * 14 / n
        turn = 2 * math.pi * distance
        point = np.array([distance, 0.25 * math.cos(turn), 0.25 * math.sin(turn)])
        for hinge in reversed(range(math.floor(distance) + 1)):
            centre = np.array([hinge, 0, 0])
            matrix = rotation_matrix("yz"[hinge % 2], angles[hinge])
            point = matrix @ (point - centre) + centre
        expected.append(point)
    assert_close(problem.function(*inputs(problem)), np.array(expected))


def test_rotation_chain_points_depend_only_on_the_hinges_before_them():
    func, x = flat(problem := build("rotation_chain", n=28), problem.function)
    jacobian = loop(func, x).reshape(14, 2, 3, 14)
    moved = jacobian.abs().amax(dim=(1, 2)) > 0
    assert torch.equal(moved, torch.ones(14, 14).tril().bool())
