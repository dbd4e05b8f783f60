"""Check the user's arguments once and flatten them to tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autodiff_core._block import Axis
from autodiff_core._linearization.graph import graph_reaches
from autodiff_core._linearization.nesting import guarded_tensors, is_wrapped
from autodiff_core._tensors.tree import TreeStructure, flatten, leaf_paths, rebuild


@dataclass(frozen=True)
class Tensors:
    """A nested structure of tensors, flattened.

    Attributes:
        leaves: The tensors in order.
        structure: Their nesting.
    """

    leaves: tuple[Tensor, ...]
    structure: TreeStructure

    @classmethod
    def of(cls, tree: Any, operation: str, what: str) -> Tensors:
        """Return a structure, all of whose leaves must be tensors, flattened.

        Args:
            tree: A tensor, or tensors nested in tuples, lists, dictionaries or other pytrees.
            operation: The function that the user called, for the message.
            what: The name of the argument, for the message.

        Raises:
            TypeError: A leaf is not a tensor.
        """
        leaves, structure = flatten(tree)
        for index, leaf in enumerate(leaves):
            if not isinstance(leaf, Tensor):
                where = leaf_paths(tree)[index]
                raise TypeError(
                    f"{operation}: {what}{where} is of type {type(leaf).__name__}; valid is a "
                    "Tensor, or Tensors nested in tuples, lists and dictionaries"
                )
        return cls(tuple(leaves), structure)

    def nest(self, leaves: Sequence[Any]) -> Any:
        """Return other leaves in the same nesting."""
        return rebuild(leaves, self.structure)


class Arguments:
    """The positional arguments of a function, split into differentiated and constant ones.

    A tuple of inputs is the list of the function's arguments, anything else is its only
    argument, as in `torch.autograd.functional`.

    Attributes:
        differentiated: The tensors with respect to which derivatives are taken, as given.
        constants: The other arguments that are tensors.
    """

    def __init__(self, inputs: Any, argnums: int | Sequence[int] | None, operation: str) -> None:
        """Split the arguments.

        Args:
            inputs: The inputs as the user gave them.
            argnums: The positions to differentiate; None stands for all.
            operation: The function that the user called, for messages.

        Raises:
            TypeError: A differentiated leaf is not a tensor, or `argnums` not an integer.
            ValueError: `argnums` names a missing argument, or one twice.
            RuntimeError: A differentiated tensor is neither floating point nor complex.
        """
        self._positional = inputs if isinstance(inputs, tuple) else (inputs,)
        self._positions = _positions(argnums, len(self._positional), operation)
        if argnums is None:
            selected = inputs
        elif isinstance(argnums, int):
            selected = self._positional[self._positions[0]]
        else:
            selected = tuple(self._positional[position] for position in self._positions)
        self.differentiated = Tensors.of(selected, operation, "inputs")
        for index, leaf in enumerate(self.differentiated.leaves):
            if not (leaf.is_floating_point() or leaf.is_complex()):
                raise RuntimeError(
                    f"{operation}: inputs{leaf_paths(selected)[index]} is of dtype {leaf.dtype}; "
                    "only floating-point and complex tensors can be differentiated"
                )
        self._is_single = argnums is None and not isinstance(inputs, tuple)
        self._is_single = self._is_single or isinstance(argnums, int)
        self._places = [
            place
            for place, value in enumerate(self._positional)
            if place not in self._positions and isinstance(value, Tensor)
        ]
        self.constants = tuple(self._positional[place] for place in self._places)

    def call(
        self,
        func: Callable[..., Any],
        leaves: Sequence[Tensor],
        constants: Sequence[Tensor] | None = None,
    ) -> Any:
        """Call the function with other tensors in place of the differentiated ones.

        Args:
            func: The function.
            leaves: The tensors in place of the differentiated ones.
            constants: Those in place of the constants; None for the constants themselves.
        """
        selected = self.differentiated.nest(leaves)
        replaced = list(self._positional)
        for place, value in zip(self._places, constants or self.constants, strict=True):
            replaced[place] = value
        for position, value in zip(
            self._positions, (selected,) if self._is_single else selected, strict=True
        ):
            replaced[position] = value
        return func(*replaced)


def _positions(argnums: int | Sequence[int] | None, count: int, operation: str) -> tuple[int, ...]:
    if argnums is None:
        return tuple(range(count))
    given = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for number in given:
        if not isinstance(number, int):
            raise TypeError(f"{operation}: argnums holds {number!r}; valid are integers")
        if not -count <= number < count:
            raise ValueError(
                f"{operation}: argnums names argument {number}, but inputs holds {count}"
            )
    positions = tuple(number % count for number in given)
    if len(set(positions)) != len(positions):
        raise ValueError(f"{operation}: argnums={argnums!r} names an argument twice")
    return positions


class FlatFunction:
    """A user's function, wrapped as a function from tensors to a tuple of tensors.

    Attributes:
        structure: The nesting of the outputs; None before the first call.
        auxiliary: The auxiliary value that the first call returned (with `has_aux`).
        is_cut: Whether, at the first call that made a graph, it led from no output to any input.
    """

    def __init__(
        self, func: Callable[..., Any], arguments: Arguments, operation: str, *, has_aux: bool
    ) -> None:
        """Wrap `func` without calling it."""
        self._func = func
        self._arguments = arguments
        self._operation = operation
        self._has_aux = has_aux
        self.structure: TreeStructure | None = None
        self.auxiliary: Any = None
        self.is_cut: bool | None = None

    def __call__(
        self, *leaves: Tensor, constants: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Evaluate the function at other tensors.

        Args:
            leaves: The differentiated tensors.
            constants: The other arguments that are tensors; None for those that were given.

        Raises:
            TypeError: The function returned something that is not a tensor.
            RuntimeError: It computed an output in inference mode.
        """
        with _as_written(), guarded_tensors(leaves):
            result = self._arguments.call(self._func, leaves, constants)
        auxiliary = None
        if self._has_aux:
            if not (isinstance(result, tuple) and len(result) == 2):
                raise TypeError(
                    f"{self._operation}: with has_aux=True func must return a pair "
                    f"(output, auxiliary), not {type(result).__name__}"
                )
            result, auxiliary = result
        outputs = Tensors.of(result, self._operation, "the output of func")
        if self.structure is None:
            _refuse_inference(outputs.leaves, self._operation)
            self.structure = outputs.structure
            self.auxiliary = auxiliary
        makes_graph = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves)
        if self.is_cut is None and makes_graph and not any(map(is_wrapped, leaves)):
            self.is_cut = not graph_reaches(outputs.leaves, leaves)
        # A sparse output has a row for each of its elements, as others have.
        return tuple(
            leaf if leaf.layout == torch.strided else leaf.to_dense() for leaf in outputs.leaves
        )


def _refuse_inference(outputs: Sequence[Tensor], operation: str) -> None:
    for index, output in enumerate(outputs):
        if output.is_inference() and (output.is_floating_point() or output.is_complex()):
            raise RuntimeError(
                f"{operation}: output {index} of func was computed under torch.inference_mode(), "
                "in which autograd sees nothing, so its derivative would be zero; valid is a "
                "function without it (torch.no_grad() around a part means a zero derivative there)"
            )


def _as_written() -> contextlib.AbstractContextManager[None]:
    """Return a context in which functions compiled by `torch.compile` run uncompiled.

    Code compiled by inductor loses tangents without an error, and has neither a second derivative
    nor a rule for vmap.
    """
    if "_dynamo" not in vars(torch):
        # Nothing has been compiled, and setting a stance would load the compiler.
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


def prepare_primals(
    leaves: Sequence[Tensor], *, create_graph: bool, axis: Axis
) -> tuple[Tensor, ...]:
    """Return copies that require a gradient.

    They are copies because the user's tensors must never be modified, even by a function that
    works in place, and because a tensor that the function also captures must count as a constant
    there. With `create_graph` the copies stay connected to the user's tensors, and keep the
    tangents of a forward mode around the caller. Inside a transformation of `torch.func` no tensor
    can be made to require a gradient; forward mode does without.

    Raises:
        RuntimeError: A transformation of `torch.func` around the caller, and reverse mode.
    """

    def prepared(leaf: Tensor) -> Tensor:
        copied = leaf.clone() if create_graph else leaf.detach().clone()
        is_transformed = create_graph and axis is Axis.COLUMNS and is_wrapped(leaf)
        return copied if is_transformed else copied.requires_grad_()

    return tuple(map(prepared, leaves))


def prepare_vectors(leaves: Sequence[Tensor], *, create_graph: bool) -> tuple[Tensor, ...]:
    """Return the user's vectors, detached unless `create_graph` needs their history."""
    return tuple(
        _connected(leaf) if create_graph and leaf.requires_grad else leaf.detach()
        for leaf in leaves
    )


def _connected(leaf: Tensor) -> Tensor:
    # A sparse tensor has no views.
    return leaf.clone() if leaf.layout != torch.strided else leaf.view_as(leaf)


def check_vectors(
    vectors: Sequence[Tensor], references: Sequence[Tensor], operation: str, *, stacked: bool
) -> None:
    """Check that vectors have the sizes of the tensors that they multiply.

    Args:
        vectors: One tensor for each reference, with a leading dimension over vectors if `stacked`.
        references: The outputs (for `vjp`) or the inputs (for the other products).
        operation: The function that the user called, for the message.
        stacked: Whether several vectors are given at once.

    Raises:
        RuntimeError: The number of tensors, or the size of one, is wrong.
    """
    if len(vectors) != len(references):
        raise RuntimeError(
            f"{operation}: v holds {len(vectors)} tensors; valid is {len(references)}, one for "
            "each tensor that it multiplies"
        )
    counts = {len(vector) for vector in vectors if stacked and vector.dim()}
    for index, (vector, reference) in enumerate(zip(vectors, references, strict=True)):
        expected = tuple(reference.shape)
        given = tuple(vector.shape[1:] if stacked else vector.shape)
        if given != expected or (stacked and (vector.dim() == 0 or len(counts) != 1)):
            valid = f"(vectors, {', '.join(map(str, expected))})" if stacked else f"{expected}"
            raise RuntimeError(
                f"{operation}: v[{index}] has the shape {tuple(vector.shape)}; valid is {valid}"
            )
