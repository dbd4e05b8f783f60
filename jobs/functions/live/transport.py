"""Send objects that a program holds to other processes; tensors travel in memory that all share.

The objects are pickled by cloudpickle, which sends functions and classes of ``__main__`` by value.
The entries of tensors and arrays lie beside that, in one piece of memory or one file. Each process
maps it privately (MAP_PRIVATE): pages to which a process writes are copied, others are shared.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import cloudpickle
import torch
from torch import Tensor
from torch.nn import Parameter

from jobs.errors import ConfigurationError
from jobs.functions.tracebacks import one_line
from jobs.sources.plain_tensors import unlike_plain
from jobs.sources.source_array import BYTES_AT_ONCE

_ALIGNMENT = 64


class _Form(NamedTuple):
    """What remains of a tensor in the pickle."""

    number: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    requires_grad: bool
    is_parameter: bool


@dataclass(frozen=True)
class Parcel:
    """Objects as bytes, without the entries of their tensors.

    Attributes:
        data: The pickle.
        places: Begin and end of each tensor, then of each array, in the shared memory.
        tensors: How many of the places are of tensors.
    """

    data: bytes
    places: tuple[tuple[int, int], ...]
    tensors: int

    @property
    def size(self) -> int:
        """The bytes of the shared memory; at least one, because none cannot be mapped."""
        return max(1, *(stop for _, stop in self.places)) if self.places else 1


class Packed:
    """Objects that are ready to be sent.

    Args:
        held: The objects.
        what: What they are, for messages.

    Attributes:
        parcel: What each process gets.

    Raises:
        ConfigurationError: Something in them cannot be pickled.
    """

    def __init__(self, held: Any, what: str) -> None:
        file, arrays = io.BytesIO(), []
        pickler = _Pickler(file, arrays)
        try:
            with _main_by_value():
                pickler.dump(held)
        # The objects of a user may raise anything.
        except Exception as error:
            raise ConfigurationError(
                f"{what} cannot be sent to other processes ({one_line(error)}); valid is one "
                "device, which needs no other process"
            ) from error
        self._entries: list[Any] = [*pickler.tensors, *arrays]
        places, begin = [], 0
        for each in self._entries:
            stop = begin + (each.nbytes if isinstance(each, Tensor) else each.raw().nbytes)
            places.append((begin, stop))
            begin = -(-stop // _ALIGNMENT) * _ALIGNMENT
        self.parcel = Parcel(file.getvalue(), tuple(places), len(pickler.tensors))

    def write(self, descriptor: int) -> None:
        """Write the entries of tensors and arrays to a file or to shared memory."""
        os.truncate(descriptor, self.parcel.size)
        for each, (begin, _) in zip(self._entries, self.parcel.places, strict=True):
            os.lseek(descriptor, begin, os.SEEK_SET)
            for piece in _pieces(each):
                while piece:
                    piece = piece[os.write(descriptor, piece) :]


@contextmanager
def _main_by_value() -> Iterator[None]:
    """Send functions and classes of the main module by value in a process that was spawned, too.

    There it has another name, by which cloudpickle does not know it.
    """
    main = sys.modules.get("__mp_main__")
    if main is None:
        yield
        return
    cloudpickle.register_pickle_by_value(main)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(main)


class _Pickler(cloudpickle.Pickler):
    def __init__(self, file: io.BytesIO, arrays: list[pickle.PickleBuffer]) -> None:
        # What the callback returns tells whether the buffer is pickled too.
        super().__init__(file, protocol=5, buffer_callback=lambda each: arrays.append(each))
        self.tensors: list[Tensor] = []
        self._forms: dict[int, _Form] = {}

    def persistent_id(self, obj: Any) -> _Form | None:
        """Take a dense tensor out of the pickle."""
        if type(obj) not in (Tensor, Parameter) or unlike_plain(obj):
            return None
        if id(obj) not in self._forms:
            self._forms[id(obj)] = _Form(
                len(self.tensors),
                obj.dtype,
                tuple(obj.shape),
                obj.requires_grad,
                isinstance(obj, Parameter),
            )
            self.tensors.append(obj)
        return self._forms[id(obj)]


class _Unpickler(pickle.Unpickler):
    def __init__(self, parcel: Parcel, memory: mmap.mmap) -> None:
        view = memoryview(memory)
        arrays = [view[begin:stop] for begin, stop in parcel.places[parcel.tensors :]]
        super().__init__(io.BytesIO(parcel.data), buffers=arrays)
        self._parcel, self._memory = parcel, memory
        self._made: dict[int, Tensor] = {}

    def persistent_load(self, pid: Any) -> Tensor:
        """Return the tensor of a form; the same one each time."""
        form = _Form(*pid)
        if form.number not in self._made:
            self._made[form.number] = self._tensor(form)
        return self._made[form.number]

    def _tensor(self, form: _Form) -> Tensor:
        begin, stop = self._parcel.places[form.number]
        count = (stop - begin) // form.dtype.itemsize
        if count:
            flat = torch.frombuffer(self._memory, dtype=form.dtype, count=count, offset=begin)
        else:
            flat = torch.empty(0, dtype=form.dtype)
        tensor = flat.reshape(form.shape)
        if form.is_parameter:
            return Parameter(tensor, form.requires_grad)
        return tensor.requires_grad_(form.requires_grad)


def unpacked(parcel: Parcel, descriptor: int) -> Any:
    """Return the objects of a parcel.

    Args:
        parcel: The parcel.
        descriptor: The file or memory with the entries, which is mapped privately and closed.
    """
    memory = mmap.mmap(descriptor, parcel.size, access=mmap.ACCESS_COPY)
    os.close(descriptor)
    return _Unpickler(parcel, memory).load()


def _pieces(each: Tensor | pickle.PickleBuffer) -> Iterable[memoryview]:
    """Return the bytes of a tensor, copied from its device in pieces, or of an array."""
    if isinstance(each, pickle.PickleBuffer):
        return [each.raw()]
    flat = each.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    if not flat.numel():
        return []
    step = max(1, BYTES_AT_ONCE // flat.element_size())
    return (piece.cpu().view(torch.uint8).numpy().data for piece in flat.split(step))
