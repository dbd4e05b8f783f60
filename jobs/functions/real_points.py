"""Refuse complex points where a matrix is defined for real ones only."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from jobs.configuration.schema import JobConfig
from jobs.errors import ConfigurationError
from jobs.operations import OPERATIONS


def require_real_point(config: JobConfig, point: Mapping[str, Tensor]) -> None:
    """Check that no tensor is complex by which the options take a matrix of real numbers.

    Complex inputs and parameters stay complex under a real `dtype`, so that the option does not
    tell.

    Args:
        config: The options.
        point: What is differentiated by, by name.

    Raises:
        ConfigurationError: One is.
    """
    real_only = {
        f"op={config.op}": OPERATIONS[config.op].is_curvature,
        f"structure={config.structure.kind}": config.structure.kind != "full",
        f"points={config.points.by}": config.points.are_many,
    }
    options = " ".join(option for option, is_given in real_only.items() if is_given)
    name = next((name for name, tensor in point.items() if tensor.is_complex()), None)
    if options and name is not None:
        raise ConfigurationError(
            f"{options}: {name} is complex, and the matrix is one by real tensors; keep its real "
            "and imaginary parts in a real tensor, of which torch.view_as_complex makes a complex "
            "one within the function"
        )
