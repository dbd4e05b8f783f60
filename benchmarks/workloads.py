"""The workloads of the speed benchmark: built-in problems at two sizes, and users' functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import users
from torch import Tensor

from jobs.problems import load_builder

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Workload:
    """A function, a point and an operation.

    Attributes:
        name: The name in the table.
        problem: The name of the built-in problem.
        operation: ``jacobian``, ``hessian``, ``hvp`` or ``vjp``.
        standard: The problem's options for a run of minutes.
        full: Its options at full size.
        vectors: How many vectors a product has.
    """

    name: str
    problem: str
    operation: str
    standard: dict[str, int]
    full: dict[str, int]
    vectors: int = 0

    def build(self, *, is_full: bool, device: torch.device = CPU) -> Instance:
        """Build the function and the point, in float32."""
        options = self.full if is_full else self.standard
        built = load_builder(self.problem)(dtype=torch.float32, device=device, **options)
        is_second_order = self.operation in ("hessian", "hvp")
        function: Any = built.scalar if is_second_order else built.function
        assert function is not None
        return Instance(self, function, tuple(built.point.values()), options)

    def job_options(self, options: dict[str, int]) -> list[str]:
        """Return the options by which a job names the function at a size, and its point."""
        return [
            f"function={self.problem}",
            *(f"function.{name}={value}" for name, value in options.items()),
        ]


@dataclass(frozen=True)
class UserWorkload(Workload):
    """A function of the module `users`, which has one size."""

    def build(self, *, is_full: bool, device: torch.device = CPU) -> Instance:
        """Return the function and its point."""
        if device.type != "cpu":
            raise SystemExit("--set users: valid on the CPU, where the functions' constants are")
        function = getattr(users, self.problem)
        return Instance(self, function, (getattr(users, f"{self.problem}_point")(),), {})

    def job_options(self, options: dict[str, int]) -> list[str]:
        """Return the options by which a job names the function and its point."""
        place = f"{Path(users.__file__)}:{self.problem}"
        return [
            "function=python",
            f"function.target={place}",
            f"function.point={place}_point",
        ]


@dataclass(frozen=True)
class Instance:
    """A workload at one size.

    Attributes:
        workload: The workload.
        function: The function of tensors.
        point: Its arguments.
        options: The problem's options.
        rows: Rows of the matrix.
        columns: Columns of the matrix.
    """

    workload: Workload
    function: Callable[..., Tensor]
    point: tuple[Tensor, ...]
    options: dict[str, int]
    rows: int = field(init=False)
    columns: int = field(init=False)

    def __post_init__(self) -> None:
        inputs = sum(part.numel() for part in self.point)
        with torch.no_grad():
            outputs = self.function(*self.point).numel()
        operation, count = self.workload.operation, self.workload.vectors
        rows = {"jacobian": outputs, "hessian": inputs}.get(operation, count)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "columns", inputs)

    @property
    def device(self) -> torch.device:
        """The device of all tensors, with its index if it is a CUDA device."""
        return self.point[0].device

    @property
    def is_second_order(self) -> bool:
        """Whether the gradient is differentiated."""
        return self.workload.operation in ("hessian", "hvp")

    @property
    def constants(self) -> dict[str, Any]:
        """The constants of the function."""
        return self.function.keywords  # type: ignore[attr-defined]

    def drawn_vectors(self) -> Tensor | None:
        """Return the vectors of a product, flattened to shape (vectors, elements); else None."""
        if not self.workload.vectors:
            return None
        with torch.no_grad():
            outputs = self.function(*self.point).numel()
        size = outputs if self.workload.operation == "vjp" else self.columns
        generator = torch.Generator().manual_seed(0)
        return torch.randn(self.workload.vectors, size, generator=generator).to(self.device)


WORKLOADS = (
    Workload(
        "MLP input Jacobian", "mlp", "jacobian", {"n": 1024, "seed": 0}, {"n": 2048, "seed": 0}
    ),
    Workload(
        "MLP parameter Jacobian",
        "mlp_parameters",
        "jacobian",
        {"n": 256, "samples": 16, "seed": 0},
        {"n": 256, "samples": 16, "seed": 0},
    ),
    Workload(
        "MLP loss Hessian",
        "mlp_parameters",
        "hessian",
        {"n": 28, "samples": 64, "seed": 0},
        {"n": 28, "samples": 64, "seed": 0},
    ),
    Workload(
        "pairwise energy Hessian",
        "pairwise_energy",
        "hessian",
        {"n": 256, "seed": 0},
        {"n": 512, "seed": 0},
    ),
    Workload(
        "GP residual Jacobian",
        "gp_residual",
        "jacobian",
        {"n": 2000, "inducing": 200, "seed": 0},
        {"n": 10000, "inducing": 1000, "seed": 0},
    ),
    Workload("rotations", "rotation_chain", "jacobian", {"n": 3005}, {"n": 3005}),
    Workload("Brusselator", "brusselator", "jacobian", {"n": 32}, {"n": 32}),
    Workload(
        "transformer block",
        "transformer_block",
        "jacobian",
        {"n": 48, "width": 96, "heads": 4, "seed": 0},
        {"n": 48, "width": 192, "heads": 4, "seed": 0},
    ),
    Workload(
        "MLP loss, 256 hvp",
        "mlp_parameters",
        "hvp",
        {"n": 28, "samples": 64, "seed": 0},
        {"n": 28, "samples": 64, "seed": 0},
        vectors=256,
    ),
    Workload(
        "MLP parameters, 256 vjp",
        "mlp_parameters",
        "vjp",
        {"n": 256, "samples": 16, "seed": 0},
        {"n": 256, "samples": 16, "seed": 0},
        vectors=256,
    ),
)

USERS = tuple(
    UserWorkload(name.replace("_", " "), name, operation, {}, {})
    for name, operation in users.OPERATIONS.items()
)

SETS = {"problems": WORKLOADS, "users": USERS}
"""The sets of workloads by the names that the command line gives them."""
