"""Detect the structural pattern of the derivative of a function.

The method is sparsity detection by interpretation of a traced graph: C. Bischof, P. Khademi,
A. Bouaricha, A. Carle, Efficient computation of gradients and Jacobians by dynamic exploitation
of sparsity in automatic differentiation, Optimization Methods and Software 7 (1996), 1-39.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from autodiff_core._errors import first_line, is_out_of_memory
from autodiff_core.sparse._detection.dependence import Context, Traced
from autodiff_core.sparse._detection.index_sets import Layer, Layers, Sets, Table
from autodiff_core.sparse._detection.interpreter import interpret
from autodiff_core.sparse._detection.trace import Subject
from autodiff_core.sparse._errors import DetectionError
from autodiff_core.sparse._pattern import SparsityPattern

_MOST_ENTRIES = 2**31 - 1


def detect_sparsity(
    func: Callable[..., Any],
    inputs: Any,
    *,
    operation: str = "jacobian",
    argnums: int | Sequence[int] | None = None,
    most_entries: int | None = None,
    most_seconds: float | None = None,
) -> SparsityPattern:
    """Return the structural pattern of a Jacobian or Hessian.

    The function is traced once, at the given inputs, and the graph is run on index sets instead of
    numbers. The pattern is valid wherever the function takes the same branches and captures the
    same constants, which the trace freezes. It may contain entries that are zero (an operator
    without a rule is assumed to read everything, and is named in the pattern), and misses none.

    Args:
        func: Called with the tensors of a tuple of inputs as its arguments; for a Hessian it
            returns one tensor with one element.
        inputs: A tensor, a tuple of arguments, or another nested structure of tensors; real.
        operation: ``jacobian`` or ``hessian``.
        argnums: Which arguments to differentiate; None stands for all.
        most_entries: The largest number of entries of the pattern; None stands for 2^31 - 1.
        most_seconds: The time limit of the interpretation; None for no limit.

    Returns:
        The pattern, rows and columns numbered by the flattened elements of all output and input
        tensors, one tensor after the other.

    Raises:
        TypeError: Inputs or outputs that are not tensors.
        ValueError: An operation without sparse derivatives.
        DetectionError: The function cannot be traced, or the pattern has too many entries or
            takes too long.
    """
    subject = Subject(func, inputs, operation, argnums)
    columns = sum(primal.numel() for primal in subject.primals)
    sets = Sets(columns, _MOST_ENTRIES if most_entries is None else most_entries, most_seconds)
    context = Context(sets)
    with torch.no_grad():
        if subject.has_custom_function():
            # The trace does not show on what the derivative of a custom Function depends.
            context.conservative.add("custom autograd.Function")
            outputs = [_full(shape, columns, context) for shape in subject.shapes()]
        else:
            outputs = _interpreted(subject, context)
        tables = [_rows(output, context) for output in outputs]
    return _pattern(tables, columns, context)


def _interpreted(subject: Subject, context: Context) -> Sequence[Any]:
    graph = subject.graph()
    try:
        return interpret(graph, subject.primals, context)
    # torch can trace a function wrongly: the trace of some derivatives inside it cannot be run.
    except RuntimeError as error:
        if is_out_of_memory(error) or isinstance(error, DetectionError):
            raise
        raise DetectionError(
            f"{subject.operation}: the trace of the function cannot be run: {first_line(error)}"
        ) from error


def _full(shape: tuple[int, ...], columns: int, context: Context) -> Traced:
    everything = Traced((columns,), (_all_inputs(columns, context),))
    return Traced(shape, context.everything([everything], shape))


def _all_inputs(columns: int, context: Context) -> Any:
    return Layer(torch.arange(columns, dtype=context.sets.dtype))


def _rows(output: Any, context: Context) -> Table:
    shape = tuple(output.shape)
    layers: Layers = output.layers if isinstance(output, Traced) else ()
    return context.sets.table(layers, int(np.prod(shape, dtype=np.int64)))


def _pattern(tables: Sequence[Table], columns: int, context: Context) -> SparsityPattern:
    if len(tables) == 1:
        indptr, indices = tables[0].indptr, tables[0].indices
    else:
        starts = np.cumsum([0, *(len(table.indices) for table in tables)])
        parts = [table.indptr[1:] + start for table, start in zip(tables, starts[:-1], strict=True)]
        indptr = np.concatenate([np.zeros(1, dtype=np.int64), *parts])
        indices = np.concatenate([table.indices for table in tables])
    return SparsityPattern(
        (len(indptr) - 1, columns), indptr, indices, tuple(sorted(context.conservative))
    )
