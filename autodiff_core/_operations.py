"""The operations that the package computes, one row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Product = Literal["pullback", "pushforward"]


@dataclass(frozen=True)
class Operation:
    """One derivative operation.

    Attributes:
        name: The name that users pass.
        is_second_order: Whether it differentiates the gradient of a scalar function.
        product: ``pullback`` (vectors from the left) or ``pushforward`` (vectors from the right)
            for a product with vectors; None for the whole matrix.
    """

    name: str
    is_second_order: bool
    product: Product | None

    @property
    def multiplies_outputs(self) -> bool:
        """Whether its vectors are nested like the function's outputs; else like the inputs."""
        return self.product == "pullback" and not self.is_second_order

    @property
    def yields_outputs(self) -> bool:
        """Whether its products are nested like the function's outputs; else like the inputs."""
        return self.product == "pushforward" and not self.is_second_order

    def product_with(self, product: Product) -> Operation:
        """Return the product operation with the same matrix, by the given product."""
        return next(
            row
            for row in OPERATIONS.values()
            if (row.is_second_order, row.product) == (self.is_second_order, product)
        )


OPERATIONS = {
    row.name: row
    for row in (
        Operation("jacobian", is_second_order=False, product=None),
        Operation("hessian", is_second_order=True, product=None),
        Operation("vjp", is_second_order=False, product="pullback"),
        Operation("jvp", is_second_order=False, product="pushforward"),
        Operation("vhp", is_second_order=True, product="pullback"),
        Operation("hvp", is_second_order=True, product="pushforward"),
    )
}

MATRICES = tuple(name for name, row in OPERATIONS.items() if row.product is None)
"""The operations that compute a whole matrix."""


def operation_named(name: str) -> Operation:
    """Return the operation of a name.

    Raises:
        ValueError: There is no such operation.
    """
    if name not in OPERATIONS:
        raise ValueError(f"operation={name!r}: valid are {', '.join(OPERATIONS)}")
    return OPERATIONS[name]
