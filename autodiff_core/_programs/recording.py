"""Record a linear map as the list of operators through which its argument passes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from autodiff_core._tensors.functionalization import (
    NEEDS_ALL_WRAPPED,
    functionalized,
    unwrapped,
    wrapped,
)
from autodiff_core._tensors.tree import tensors_among, with_leaves

# Operators that take shape, dtype and device of a tensor, but no number.
_OF_SHAPE_ALONE = frozenset(
    f"{prefix}{name}{suffix}"
    for name in ("zeros", "ones", "full", "empty", "empty_strided")
    for prefix, suffix in (("new_", ""), ("", "_like"))
)


class UncapturableError(RuntimeError):
    """A linear map does something that a list of operators on its argument cannot repeat."""


# As steps, the thousands of references and calls are not frozen, which would take long.
@dataclass(slots=True)
class Reference:
    """A placeholder in an operator's arguments for a value that depends on the map's argument.

    Attributes:
        value: The value's number.
        shape: The value's shape, for one vector.
        dtype: The value's dtype.
        device: The value's device.
        is_contiguous: Whether its elements are in order in memory.
    """

    value: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    is_contiguous: bool


@dataclass(slots=True)
class Call:
    """One operator applied to values and constants.

    Attributes:
        operator: The torch operator, without side effects.
        args: The positional arguments, with values replaced by references.
        kwargs: The keyword arguments, with values replaced by references.
        outputs: The results; None for a result that is not a tensor.
        references: The references among the arguments.
    """

    operator: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Reference | None, ...]
    references: tuple[Reference, ...]


@dataclass(frozen=True)
class Recording:
    """A recorded linear map.

    Attributes:
        inputs: The argument's tensors.
        calls: The operators in order.
        outputs: The image's tensors: a reference, or a constant tensor for one that does not depend
            on the argument.
        images: The image of the vector that the map was recorded with.
    """

    inputs: tuple[Reference, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Reference | Tensor, ...]
    images: tuple[Tensor, ...]


def record(
    linear_map: Callable[[tuple[Tensor, ...]], Sequence[Tensor]], vector: tuple[Tensor, ...]
) -> Recording:
    """Apply a linear map once and record the operators that its argument passes through.

    Everything that does not depend on the argument, including the whole evaluation of the function
    itself, is computed once, here, and is a constant tensor in the recording.

    Args:
        linear_map: The map from tensors to tensors.
        vector: The argument.

    A map that works in place is recorded once more, under functionalization, which replaces that by
    operators without side effects.

    Raises:
        UncapturableError: The map reads its argument's numbers, or works in place where
            functionalization cannot replace it.
    """
    recorder, images = _observed(linear_map, vector)
    if recorder.writes:
        # Functionalization ends the process if it meets such a tensor.
        if recorder.has_met_zero_tensors:
            raise UncapturableError(f"{recorder.writes} writes into an argument")
        try:
            recorder, images = _observed(linear_map, vector, wraps_copies=False)
        except RuntimeError as error:
            if NEEDS_ALL_WRAPPED not in str(error):
                raise
            recorder, images = _observed(linear_map, vector, wraps_copies=True)
        if recorder.writes:
            raise UncapturableError(f"{recorder.writes} writes into an argument")
    found = tuple(image.detach() for image in images)
    outputs = tuple(
        recorder.reference(image) or part for image, part in zip(images, found, strict=True)
    )
    return Recording(recorder.inputs, tuple(recorder.calls), outputs, found)


def _observed(
    linear_map: Callable[[tuple[Tensor, ...]], Sequence[Tensor]],
    vector: tuple[Tensor, ...],
    *,
    wraps_copies: bool | None = None,
) -> tuple[_Recorder, list[Tensor]]:
    """Return what a recorder has seen of one application of a map, and the images.

    Args:
        linear_map: The map.
        vector: Its argument, which is not modified.
        wraps_copies: That of `functionalized`; None for no functionalization.
    """
    given = tuple(part.clone() for part in vector)
    recorder = _Recorder(given)
    with recorder:
        if wraps_copies is None:
            return recorder, list(linear_map(given))
        with functionalized(wraps_copies=wraps_copies):
            return recorder, [unwrapped(each) for each in linear_map(tuple(map(wrapped, given)))]


class _Recorder(TorchDispatchMode):
    """Intercepts every operator below autograd and keeps those that receive a tracked tensor.

    Attributes:
        inputs: The tensors of the argument.
        calls: The operators with their arguments and results.
        writes: The first operator that writes into an argument; empty if there is none.
        has_met_zero_tensors: Whether an operator received torch's tensor of zeros without memory,
            and none had been made since the beginning.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Skipping would load torch's compiler, which takes a second or two even if unused.
        return False

    def __init__(self, vector: Sequence[Tensor]) -> None:
        super().__init__()
        self._references: dict[int, Reference] = {}
        # The identity of a tensor is unique only while the tensor is alive.
        self._alive: list[Tensor] = []
        self.calls: list[Call] = []
        self.writes = ""
        self.has_met_zero_tensors = False
        # Autograd copies and expands such tensors without an operator: they cannot be told apart.
        self._makes_zero_tensors = False
        # The numbers of the calls that take each constant, by its identity.
        self._takers: dict[int, list[int]] = {}
        self._without_grad: dict[int, Tensor] = {}
        self._new_constants: list[Tensor] = []
        self._by_storage: defaultdict[int, list[Tensor]] = defaultdict(list)
        self.inputs = tuple(self._track(part) for part in vector)

    def reference(self, tensor: Any) -> Reference | None:
        return self._references.get(id(tensor)) if isinstance(tensor, Tensor) else None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = tensors_among(args, kwargs)
        if any(map(Tensor._is_zerotensor, tensors)):
            self.has_met_zero_tensors |= not self._makes_zero_tensors
            args, kwargs = with_leaves(_materialised, args), with_leaves(_materialised, kwargs)
        # Most operators belong to the function's own evaluation and receive no tracked tensor. All
        # tracked tensors are kept alive, so a known identity is that of a tracked tensor.
        is_tracked = not self._references.keys().isdisjoint(map(id, tensors))
        name = func.overloadpacket.__name__
        if not is_tracked or name in _OF_SHAPE_ALONE:
            if name[-1] == "_" and args and isinstance(args[0], Tensor):
                self._keep_constants_of(args[0])
            result = func(*args, **kwargs)
            if is_zero_tensor(result):
                self._makes_zero_tensors = True
            return result
        if name == "_local_scalar_dense":
            raise UncapturableError("a number of the vector is read")
        if writes_into(func):
            self.writes = self.writes or str(func)
        result = func(*args, **kwargs)
        if self.writes:
            return result  # the map is recorded once more
        results = result if isinstance(result, tuple | list) else (result,)
        made = [isinstance(part, Tensor) and not part.is_meta for part in results]
        if not any(made):
            return result
        references: list[Reference] = []
        found_args = tuple([self._argument(part, references) for part in args])
        if kwargs:
            kwargs = {name: self._argument(part, references) for name, part in kwargs.items()}
        outputs = tuple(
            [
                self._track(part) if is_made else None
                for part, is_made in zip(results, made, strict=True)
            ]
        )
        self.calls.append(Call(func, found_args, kwargs, outputs, tuple(references)))
        return result

    def _argument(self, part: Any, references: list[Reference]) -> Any:
        """Return what stands for an argument of the next call, and note the references in it."""
        if isinstance(part, Tensor):
            reference = self._references.get(id(part))
            if reference is None:
                return self._constant(part)
            references.append(reference)
            return reference
        kind = type(part)
        if kind is list or kind is tuple:
            return kind([self._argument(each, references) for each in part])
        return part

    def _track(self, tensor: Tensor) -> Reference:
        is_contiguous = tensor.layout == torch.strided and tensor.is_contiguous()
        reference = Reference(
            len(self._alive), tuple(tensor.shape), tensor.dtype, tensor.device, is_contiguous
        )
        self._references[id(tensor)] = reference
        self._alive.append(tensor)
        return reference

    def _constant(self, tensor: Tensor) -> Tensor:
        """Note that the next call takes a constant, which the map may still modify.

        Returns:
            The constant, sharing its memory, as one that requires no gradient: torch copies what is
            to be multiplied by a matrix that requires one.
        """
        takers = self._takers.get(id(tensor))
        if takers is None:
            takers = self._takers[id(tensor)] = []
            self._new_constants.append(tensor)
            self._alive.append(tensor)
            if tensor.requires_grad:
                self._without_grad[id(tensor)] = tensor.detach()
        takers.append(len(self.calls))
        return self._without_grad.get(id(tensor), tensor)

    def _keep_constants_of(self, modified: Tensor) -> None:
        """Copy the constants that an in-place operator is about to modify."""
        if modified.layout != torch.strided:
            return
        for constant in self._new_constants:
            if constant.layout == torch.strided:
                self._by_storage[_storage(constant)].append(constant)
        self._new_constants.clear()
        for constant in self._by_storage.pop(_storage(modified), ()):
            noted = self._without_grad.get(id(constant), constant)
            copies = {id(noted): noted.clone()}
            for number in self._takers.pop(id(constant)):
                call = self.calls[number]
                call.args = with_leaves(lambda leaf, c=copies: c.get(id(leaf), leaf), call.args)
                call.kwargs = with_leaves(lambda leaf, c=copies: c.get(id(leaf), leaf), call.kwargs)


@cache
def writes_into(func: Any) -> tuple[tuple[int, str], ...]:
    """Return the places and the names of the arguments that an operator writes into."""
    return tuple(
        (place, each.name)
        for place, each in enumerate(func._schema.arguments)
        if each.alias_info is not None and each.alias_info.is_write
    )


def is_zero_tensor(leaf: Any) -> bool:
    """Return whether an argument is torch's tensor of zeros that has no memory.

    Derivatives inside the function make such tensors. An operator that receives one below a
    dispatch mode can end the process (`aten.mul.Scalar` does in torch 2.13).
    """
    return isinstance(leaf, Tensor) and leaf._is_zerotensor()


def _materialised(leaf: Any) -> Any:
    if not is_zero_tensor(leaf):
        return leaf
    return torch.zeros(leaf.shape, dtype=leaf.dtype, device=leaf.device)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
