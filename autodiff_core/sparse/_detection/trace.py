"""The graph of operators that a function, or its gradient, runs at a point.

The public module that exports torch's table of decompositions is slow to load, so this module, and
no other, imports the private one.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from autodiff_core._errors import first_line
from autodiff_core._linearization.arguments import Arguments, FlatFunction
from autodiff_core._linearization.second_order import custom_functions
from autodiff_core._operations import MATRICES, OPERATIONS
from autodiff_core.sparse._errors import DetectionError


class Subject:
    """A function at a point, as a function of the differentiated tensors.

    Attributes:
        operation: The operation, ``jacobian`` or ``hessian``.
        primals: Copies of the differentiated tensors.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        inputs: Any,
        operation: str,
        argnums: int | Sequence[int] | None = None,
    ) -> None:
        """Check the inputs.

        Raises:
            TypeError: Inputs that are not tensors.
            ValueError: An operation without sparse derivatives.
            RuntimeError: Complex inputs.
        """
        if operation not in MATRICES:
            raise ValueError(f"operation={operation!r}: valid are {', '.join(MATRICES)}")
        self.operation = operation
        self._is_second_order = OPERATIONS[operation].is_second_order
        self._arguments = Arguments(inputs, argnums, operation)
        self._func = func
        leaves = self._arguments.differentiated.leaves
        if any(leaf.is_complex() for leaf in leaves):
            raise RuntimeError(f"{operation}: sparse derivatives support only real inputs")
        self.primals = tuple(leaf.detach().clone() for leaf in leaves)

    def function(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Evaluate the function itself."""
        return FlatFunction(self._func, self._arguments, self.operation, has_aux=False)(*leaves)

    def differentiated(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Evaluate the function of which the matrix is the Jacobian: itself, or its gradient."""
        if not self._is_second_order:
            return self.function(*leaves)
        return torch.func.grad(self._scalar, argnums=tuple(range(len(leaves))))(*leaves)

    def has_custom_function(self) -> bool:
        """Return whether the function uses a custom autograd.Function."""
        with torch.enable_grad():
            outputs = self.function(*(primal.clone().requires_grad_() for primal in self.primals))
            return any(custom_functions(output) for output in outputs)

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the tensors along the rows."""
        along = self.primals if self._is_second_order else self.function(*self.primals)
        return [tuple(tensor.shape) for tensor in along]

    def graph(self) -> fx.GraphModule:
        """Return the graph of `differentiated`, in functional core operators.

        Raises:
            DetectionError: The function cannot be traced.
        """
        differentiated = torch.func.functionalize(self.differentiated, remove="mutations")
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                points = [primal.clone() for primal in self.primals]
                graph = make_fx(differentiated, decomposition_table=_decompositions())(*points)
                if _changes_in_place(graph):  # some decompositions do
                    graph = make_fx(torch.func.functionalize(graph, remove="mutations"))(*points)
        # Tracing can fail with an exception of any type, including the function's own.
        except Exception as error:
            raise DetectionError(
                f"{self.operation}: the function cannot be traced: {first_line(error)}"
            ) from error
        if changing := _changes_in_place(graph):
            raise DetectionError(
                f"{self.operation}: {changing} changes a tensor in place, which is not supported"
            )
        return graph

    def _scalar(self, *leaves: Tensor) -> Tensor:
        outputs = self.function(*leaves)
        if len(outputs) != 1 or outputs[0].numel() != 1:
            shapes = ", ".join(str(tuple(output.shape)) for output in outputs)
            raise RuntimeError(
                f"{self.operation}: func returned tensors of the shapes {shapes}; valid is one "
                "tensor with one element"
            )
        return outputs[0].reshape(())


def _changes_in_place(graph: fx.GraphModule) -> str:
    """Return the name of an operator in a graph that changes its operand; empty if none does."""
    for node in graph.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is not None and schema.is_mutable:
            return str(node.target)
    return ""


@functools.cache
def _decompositions() -> dict[Any, Any]:
    aten = torch.ops.aten
    table = dict(core_aten_decompositions())
    # Core operators whose decomposition gives a sharper result.
    table |= get_decompositions(
        [
            aten._softmax,
            aten._log_softmax,
            aten.native_layer_norm,
            aten.native_group_norm,
            aten._native_batch_norm_legit,
            aten._native_batch_norm_legit_no_training,
            aten.native_batch_norm,
            aten.addmm,
            aten.var,
            aten.elu,
            aten.embedding,
        ]
    )
    # Its own rule is sharper than its decomposition.
    table.pop(aten.roll.default)
    return table
