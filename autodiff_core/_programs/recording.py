"""Record a linear map as the list of operators through which its argument passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from autodiff_core._tensors.tree import leaves_of_arguments, with_leaves


class UncapturableError(RuntimeError):
    """A linear map does something that a list of operators on its argument cannot repeat."""


@dataclass(frozen=True)
class Reference:
    """Stands in the arguments of an operator for a value that depends on the map's argument.

    Attributes:
        value: Its number.
        shape: Its shape, for one vector.
        dtype: Its dtype.
        device: Its device.
    """

    value: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class Call:
    """One operator applied to values and constants.

    Attributes:
        operator: The operator of torch, without side effects.
        args: Its positional arguments, values replaced by references.
        kwargs: Its keyword arguments, likewise.
        outputs: What it returns; None for outputs that are no tensors.
    """

    operator: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Reference | None, ...]


@dataclass(frozen=True)
class Recording:
    """A recorded linear map.

    Attributes:
        inputs: The argument's tensors.
        calls: The operators in order.
        outputs: The image's tensors; a tensor where one does not depend on the argument.
        images: What the map gave for the argument that it was recorded with.
    """

    inputs: tuple[Reference, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Reference | Tensor, ...]
    images: tuple[Tensor, ...]


def record(
    linear_map: Callable[[tuple[Tensor, ...]], Sequence[Tensor]], vector: tuple[Tensor, ...]
) -> Recording:
    """Apply a linear map once and record the operators that its argument passes through.

    Everything that does not depend on the argument is computed here, once, and stands as a
    constant tensor in the recording: that is all of the function's own evaluation.

    Args:
        linear_map: Takes tensors, gives tensors.
        vector: Tensors of ours that no one else holds; the map may modify them.

    Raises:
        UncapturableError: The map looks at its argument's numbers, or modifies tensors of which
            there are views.
    """
    recorder = _Recorder(vector)
    with recorder:
        images = linear_map(vector)
    found = tuple(image.detach() for image in images)
    outputs = tuple(
        recorder.reference(image) or part for image, part in zip(images, found, strict=True)
    )
    return Recording(recorder.inputs, recorder.finished(), outputs, found)


@dataclass(frozen=True)
class _Constant:
    """Stands for a constant while the recording goes on, which may still modify it."""

    number: int


class _Recorder(TorchDispatchMode):
    """Sees every operator below autograd and keeps those that a tracked tensor enters."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Skipping loads torch's compiler, a second or two, also where nothing is compiled.
        return False

    def __init__(self, vector: Sequence[Tensor]) -> None:
        super().__init__()
        self._references: dict[int, Reference] = {}
        # An identity is good for as long as its tensor lives.
        self._alive: list[Tensor] = []
        self._storages: dict[int, set[int]] = {}
        self._count = 0
        self._calls: list[Call] = []
        self._constants: list[Tensor] = []
        self._constant_numbers: dict[int, int] = {}
        self.inputs = tuple(self._track(part) for part in vector)

    def reference(self, tensor: Any) -> Reference | None:
        return self._references.get(id(tensor)) if isinstance(tensor, Tensor) else None

    def finished(self) -> tuple[Call, ...]:
        """The calls with their constants, which nothing modifies any more."""

        def filled(leaf: Any) -> Any:
            return self._constants[leaf.number] if isinstance(leaf, _Constant) else leaf

        return tuple(
            replace(
                call, args=with_leaves(filled, call.args), kwargs=with_leaves(filled, call.kwargs)
            )
            for call in self._calls
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # Most operators are the function's own and see nothing that is tracked. An identity among
        # these is that of a tensor, which is kept alive.
        is_tracked = any(
            id(leaf) in self._references for leaf in leaves_of_arguments((args, kwargs))
        )
        name = func.overloadpacket.__name__
        if not is_tracked:
            if name.endswith("_") and args and isinstance(args[0], Tensor):
                self._keep_constants_of(args[0])
            return func(*args, **kwargs)
        if name == "_local_scalar_dense":
            raise UncapturableError("a number of the vector is read")
        is_in_place = name.endswith("_") and not name.endswith("__")
        if "out" in kwargs or "out" in func._overloadname.split("_"):
            raise UncapturableError(f"{func} writes into an argument")
        operator = self._functional(func, args[0]) if is_in_place else func
        result = func(*args, **kwargs)
        if is_in_place and name == "zero_":
            self._references.pop(id(args[0]), None)
            return result
        # Before the results are tracked: an operator in place gives its argument a new number.
        found_args = with_leaves(self._argument, args)
        found_kwargs = with_leaves(self._argument, kwargs)
        results = result if isinstance(result, tuple | list) else (result,)
        outputs = tuple(
            self._track(part) if isinstance(part, Tensor) and part.device.type != "meta" else None
            for part in results
        )
        self._calls.append(Call(operator, found_args, found_kwargs, outputs))
        return result

    def _argument(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return self._references.get(id(leaf)) or self._constant(leaf)

    def _track(self, tensor: Tensor) -> Reference:
        reference = Reference(self._count, tuple(tensor.shape), tensor.dtype, tensor.device)
        self._count += 1
        self._references[id(tensor)] = reference
        self._alive.append(tensor)
        if tensor.layout == torch.strided and tensor.numel():
            self._storages.setdefault(_storage(tensor), set()).add(id(tensor))
        return reference

    def _constant(self, tensor: Tensor) -> _Constant:
        number = self._constant_numbers.setdefault(id(tensor), len(self._constants))
        if number == len(self._constants):
            self._constants.append(tensor)
            self._alive.append(tensor)
        return _Constant(number)

    def _keep_constants_of(self, modified: Tensor) -> None:
        """Copy the constants that an operator in place is about to modify."""
        if modified.layout != torch.strided:
            return
        storage = _storage(modified)
        for number, constant in enumerate(self._constants):
            if constant.layout == torch.strided and _storage(constant) == storage:
                self._constants[number] = constant.clone()
                self._constant_numbers = {
                    key: value for key, value in self._constant_numbers.items() if value != number
                }

    def _functional(self, func: Any, target: Tensor) -> Any:
        """The operator without side effects that an in-place operator stands for."""
        others = self._storages.get(_storage(target), set()) - {id(target)}
        is_part = target.untyped_storage().nbytes() != target.numel() * target.itemsize
        if is_part or others:
            raise UncapturableError(f"{func} modifies a tensor of which there are views")
        packet = getattr(torch.ops.aten, func.overloadpacket.__name__[:-1], None)
        if packet is None or func._overloadname not in packet.overloads():
            raise UncapturableError(f"{func} has no form without side effects")
        return getattr(packet, func._overloadname)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
