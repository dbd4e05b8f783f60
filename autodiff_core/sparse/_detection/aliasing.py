"""Which tensors depend on the inputs, through views and changes in place.

Tensors that share memory share a state: what is known of the whole memory, and of each view of it
that a step has returned. A change in place makes a new state of the whole memory, from which
other views are read when they are used again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from autodiff_core.sparse._detection.steps import Constant, Ref
from autodiff_core.sparse._errors import DetectionError

_Geometry = tuple[Any, ...]


@dataclass
class _State:
    """What is known of a storage that holds elements which depend on inputs.

    Attributes:
        storage: Keeps the storage's address from being used again, not its data.
        owner: The tensor that covers what is known of the storage.
        views: The tensors with a known step, by dtype, shape, strides and offset.
    """

    storage: StorageWeakRef
    owner: tuple[_Geometry, Ref]
    views: dict[_Geometry, Ref]


class Storages:
    """The dependence of tensors, by their storage and their place in it."""

    def __init__(self, record: Callable[..., Ref]) -> None:
        """Start without any tensor.

        Args:
            record: Adds a step, given an operator, its arguments, and the shape and dtype of its
                result.
        """
        self._record = record
        self._states: dict[int, _State] = {}
        self._constants: dict[int, dict[_Geometry, Constant]] = {}
        self._kept: list[StorageWeakRef] = []

    def is_tracked(self, tensor: Tensor) -> bool:
        """Return whether a tensor may depend on inputs."""
        return tensor.layout is torch.strided and _key(tensor) in self._states

    def put(self, tensor: Tensor, ref: Ref) -> None:
        """Note that a step returned a tensor."""
        geometry = _geometry(tensor)
        state = self._states.get(_key(tensor))
        if state is None:
            weak = StorageWeakRef(tensor.untyped_storage())
            self._states[_key(tensor)] = _State(weak, (geometry, ref), {geometry: ref})
        else:
            state.views[geometry] = ref

    def argument(self, tensor: Tensor) -> Ref | Constant:
        """Return a tensor as the argument of a step."""
        if not self.is_tracked(tensor):
            return self._constant(tensor)
        state, geometry = self._states[_key(tensor)], _geometry(tensor)
        if geometry not in state.views:
            flat = self._flat(state, tensor)
            places = _places(tensor)
            state.views[geometry] = self._record(
                torch.ops.aten.index.Tensor, (flat, [Constant(places)]), places.shape, tensor.dtype
            )
        return state.views[geometry]

    def keep_constant(self, tensor: Tensor) -> None:
        """Copy what steps have read of a tensor that is about to be changed in place."""
        if tensor.layout is torch.strided:
            for constant in self._constants.pop(_key(tensor), {}).values():
                constant.tensor = constant.tensor.clone()

    def write(self, tensor: Tensor, source: Ref | Constant) -> None:
        """Note that a tensor is about to be overwritten by another one of its shape."""
        geometry = _geometry(tensor)
        state = self._states.get(_key(tensor))
        elements = _elements(tensor)
        if tensor.numel() == elements:
            self._states.pop(_key(tensor), None)
            if isinstance(source, Ref):
                weak = StorageWeakRef(tensor.untyped_storage())
                self._states[_key(tensor)] = _State(weak, (geometry, source), {geometry: source})
            return
        if state is None:
            if isinstance(source, Constant):
                return
            flat: Any = Constant(tensor.as_strided((elements,), (1,), 0).detach().clone())
        else:
            flat = self._flat(state, tensor)
        places = _places(tensor).reshape(-1)
        flattened = self._reshaped(source, (len(places),), tensor.dtype)
        aten = torch.ops.aten
        given = (flat, [Constant(places)], flattened)
        ref = self._record(aten.index_put.default, given, (elements,), tensor.dtype)
        whole = (tensor.dtype, (elements,), (1,), 0)
        weak = StorageWeakRef(tensor.untyped_storage())
        views = {whole: ref}
        if isinstance(source, Ref):
            views[geometry] = source
        self._states[_key(tensor)] = _State(weak, (whole, ref), views)

    def _constant(self, tensor: Tensor) -> Constant:
        if tensor.layout is not torch.strided:
            return Constant(tensor.detach())
        known = self._constants.setdefault(_key(tensor), {})
        if not known:
            self._kept.append(StorageWeakRef(tensor.untyped_storage()))
        geometry = _geometry(tensor)
        if geometry not in known:
            known[geometry] = Constant(tensor.detach())
        return known[geometry]

    def _flat(self, state: _State, tensor: Tensor) -> Any:
        """Return all elements of a storage in the order of its memory."""
        (dtype, shape, stride, offset), ref = state.owner
        if dtype != tensor.dtype:
            raise DetectionError("a tensor is changed in place through a view of another dtype")
        elements = _elements(tensor)
        whole = (dtype, (elements,), (1,), 0)
        if whole not in state.views:
            count = torch.Size(shape).numel()
            places = torch.zeros(elements, dtype=torch.int64)
            places.as_strided(shape, stride, offset).copy_(torch.arange(count).view(shape))
            flattened = self._reshaped(ref, (count,), dtype)
            given = (flattened, [Constant(places)])
            found = self._record(torch.ops.aten.index.Tensor, given, (elements,), dtype)
            state.views[whole] = found
        return state.views[whole]

    def _reshaped(self, source: Ref | Constant, shape: tuple[int, ...], dtype: torch.dtype) -> Any:
        if isinstance(source, Constant):
            return Constant(source.tensor.reshape(shape))
        return self._record(torch.ops.aten.view.default, (source, list(shape)), shape, dtype)


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _geometry(tensor: Tensor) -> _Geometry:
    return tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.storage_offset()


def _elements(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def _places(tensor: Tensor) -> Tensor:
    """Return the place in the memory of each element of a tensor."""
    every = torch.arange(_elements(tensor))
    return every.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).clone()
