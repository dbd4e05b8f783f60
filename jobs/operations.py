"""The operations of a job, in one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Operation:
    """A derivative of a function, or a product with it.

    Attributes:
        name: The name, as in the option ``op``.
        is_second_order: Whether it is of the Hessian of a scalar function, or of another curvature
            matrix, not of the Jacobian.
        is_product: Whether it multiplies the matrix with given vectors.
        is_from_left: Whether the vectors stand on the left, so that only reverse mode computes it.
        is_curvature: Whether it is JᵀHJ of a loss over the outputs of a function.
    """

    name: str
    is_second_order: bool = False
    is_product: bool = False
    is_from_left: bool = False
    is_curvature: bool = False

    @property
    def from_right(self) -> str:
        """The product of the same matrix with a vector on its right."""
        return "hvp" if self.is_second_order else "jvp"

    @property
    def from_left(self) -> str:
        """The product of the same matrix with a vector on its left."""
        return "vhp" if self.is_second_order else "vjp"


OPERATIONS = {
    each.name: each
    for each in (
        Operation("jacobian"),
        Operation("hessian", is_second_order=True),
        Operation("ggn", is_second_order=True, is_curvature=True),
        Operation("fisher", is_second_order=True, is_curvature=True),
        Operation("vjp", is_product=True, is_from_left=True),
        Operation("jvp", is_product=True),
        Operation("vhp", is_second_order=True, is_product=True, is_from_left=True),
        Operation("hvp", is_second_order=True, is_product=True),
    )
}
