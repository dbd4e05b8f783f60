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

from autodiff_core.sparse._detection.dependence import Context, Traced
from autodiff_core.sparse._detection.index_sets import Layer, Layers, Sets, Table
from autodiff_core.sparse._detection.interpreter import interpret
from autodiff_core.sparse._detection.places import named
from autodiff_core.sparse._detection.trace import CustomFunctionError, Subject
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
    local: bool = True,
) -> SparsityPattern:
    """Return the structural pattern of a Jacobian or Hessian.

    The function is evaluated once, at the given inputs, and what it did is run on index sets
    instead of numbers. Branches on values and integers that the function computes are those at the
    point, and the pattern lists them as `frozen`: it is valid wherever they are the same. It may
    contain entries that are zero (an operator without a rule is assumed to read everything, and is
    named in the pattern), and misses none.

    Args:
        func: Called with the tensors of a tuple of inputs as its arguments; for a Hessian it
            returns one tensor with one element.
        inputs: A tensor, a tuple of arguments, or another nested structure of tensors; real.
        operation: ``jacobian`` or ``hessian``.
        argnums: Which arguments to differentiate; None stands for all.
        most_entries: The largest number of entries of the pattern; None stands for 2^31 - 1.
        most_seconds: The time limit; None for no limit.
        local: Whether conditions (`torch.where`, masks) and positions (`sort`, `amax`, maxima over
            windows) are those at the point, too, as they are for the derivative. False includes
            both branches of a condition and all positions, for use at other points.

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
    context = Context(sets, detect_sparsity)
    frozen: tuple[str, ...] = ()
    try:
        try:
            recording = subject.recording(sets.check_time, is_local=local)
        except CustomFunctionError as error:
            # Its operators do not show on what its derivative depends.
            context.conservative.update(
                (f"custom autograd.Function {name}", place) for name, place in error.functions
            )
            outputs: Sequence[Any] = [_full(s, columns, context) for s in subject.shapes()]
        else:
            frozen = recording.frozen
            with torch.no_grad():
                outputs = interpret(recording, subject.primals, context)
        tables = [_rows(output, context) for output in outputs]
    except DetectionError as error:
        if not context.conservative:
            raise
        read = ", ".join(named(context.conservative))
        raise DetectionError(f"{error}; taken to depend on all they read: {read}") from error
    return _pattern(tables, columns, context, frozen)


def _full(shape: tuple[int, ...], columns: int, context: Context) -> Traced:
    everything = Traced((columns,), (_all_inputs(columns, context),))
    return Traced(shape, context.everything([everything], shape))


def _all_inputs(columns: int, context: Context) -> Any:
    return Layer(torch.arange(columns, dtype=context.sets.dtype))


def _rows(output: Any, context: Context) -> Table:
    shape = tuple(output.shape)
    layers: Layers = output.layers if isinstance(output, Traced) else ()
    return context.sets.table(layers, int(np.prod(shape, dtype=np.int64)))


def _pattern(
    tables: Sequence[Table], columns: int, context: Context, frozen: tuple[str, ...]
) -> SparsityPattern:
    if len(tables) == 1:
        indptr, indices = tables[0].indptr, tables[0].indices
    else:
        starts = np.cumsum([0, *(len(table.indices) for table in tables)])
        parts = [table.indptr[1:] + start for table, start in zip(tables, starts[:-1], strict=True)]
        indptr = np.concatenate([np.zeros(1, dtype=np.int64), *parts])
        indices = np.concatenate([table.indices for table in tables])
    shape = (len(indptr) - 1, columns)
    return SparsityPattern(shape, indptr, indices, named(context.conservative), frozen)
