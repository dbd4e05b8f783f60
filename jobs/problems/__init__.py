"""The built-in problems: functions of any size with known derivatives, to try the program with.

This page imports neither torch nor a problem: a configuration can be checked and a name listed
before the first slow import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobs.problems.problem import Problem

__all__ = ["BUILDERS", "load_builder"]

BUILDERS: dict[str, str] = {
    "rosenbrock": "jobs.problems.rosenbrock:rosenbrock",
    "mlp": "jobs.problems.mlp:mlp",
    "mlp_parameters": "jobs.problems.mlp_parameters:mlp_parameters",
    "pairwise_energy": "jobs.problems.pairwise_energy:pairwise_energy",
    "gp_residual": "jobs.problems.gp_residual:gp_residual",
    "brusselator": "jobs.problems.brusselator:brusselator",
    "transformer_block": "jobs.problems.transformer_block:transformer_block",
    "rotation_chain": "jobs.problems.rotation_chain:rotation_chain",
    "neighbour_energy": "jobs.problems.neighbour_energy:neighbour_energy",
    "convolution_stack": "jobs.problems.convolution_stack:convolution_stack",
    "burgers": "jobs.problems.burgers:burgers",
    "arrow": "jobs.problems.arrow:arrow",
    "finite_elements": "jobs.problems.finite_elements:finite_elements",
}


def load_builder(name: str) -> Callable[..., Problem]:
    """Import the builder of a built-in problem.

    Args:
        name: A key of ``BUILDERS``.

    Returns:
        The builder, a function of keyword-only arguments: the problem's options, ``dtype`` and
        ``device``.

    Raises:
        ValueError: ``name`` is no built-in problem.
    """
    if name not in BUILDERS:
        raise ValueError(f"function={name} is no built-in problem; choose from {list(BUILDERS)}.")
    module, _, function = BUILDERS[name].partition(":")
    return getattr(import_module(module), function)
