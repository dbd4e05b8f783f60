"""The chained Rosenbrock function, the test function of optimization with a curved valley.

    f(x) = sum_{i=1}^{n-1} 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2

Its gradient and tridiagonal Hessian are known in closed form.

Sources:
    H. H. Rosenbrock, An automatic method for finding the greatest or least value of a function,
    The Computer Journal 3 (1960), 175-184: two variables, starting at (-1.2, 1).
    J. J. Moré, B. S. Garbow, K. E. Hillstrom, Testing unconstrained optimization software, ACM
    Transactions on Mathematical Software 7 (1981), 17-41: n variables, the starting point
    repeated. Their extended function (number 21) couples disjoint pairs; this one couples all
    neighbours, see Y.-W. Shang, Y.-H. Qiu, A note on the extended Rosenbrock function,
    Evolutionary Computation 14 (2006), 119-126.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jobs.problems._options import check_size
from jobs.problems.problem import Problem

__all__ = ["rosenbrock"]


def rosenbrock(*, n: int, dtype: torch.dtype, device: torch.device) -> Problem:
    """Build the chained Rosenbrock function at its usual starting point (-1.2, 1, -1.2, 1, ...).

    Args:
        n: The number of variables, at least 2.
        dtype: A floating-point dtype.
        device: Where the point lies.

    Returns:
        Input ``x`` of shape (n,); output ``value`` of shape (), which is the scalar form too.

    Raises:
        ValueError: ``n`` is not valid.
    """
    check_size("n", n, minimum=2)
    start = torch.tensor([-1.2, 1.0], dtype=torch.float64).repeat((n + 1) // 2)[:n]
    return Problem(
        function=_value,
        scalar=_value,
        point={"x": start.to(device, dtype)},
        outputs=("value",),
    )


def _value(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
