"""Keep the products of a matrix with vectors, so that an interrupted iteration can be repeated.

An iterative method is a function of the products that it asks for, one after the other. A journal
holds these in a file. The same method started again asks for the same products, and gets those that
it has computed before without a pass over the matrix, whatever its own state was.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from outputs._errors import BeingWrittenError, ResultError
from outputs._storage.crc import crc32
from outputs._storage.files import is_full_disk
from outputs._storage.raw_bytes import write_bytes

_MAGIC = b"autodiff-jobs products 1\n"
# The request's hash, the shape, whether the numbers are complex, and the checksum of their bytes.
_HEADER = struct.Struct("<32sqqBxxxI")

Compute = Callable[[], np.ndarray]


class Journal(Protocol):
    """Where products are kept."""

    def product(self, request: str, factor: np.ndarray, compute: Compute) -> np.ndarray:
        """Return the product that was asked for before, or compute and keep it."""
        ...


class NoJournal:
    """A journal that keeps nothing."""

    def product(self, request: str, factor: np.ndarray, compute: Compute) -> np.ndarray:
        """Compute the product."""
        return compute()


class FileJournal:
    """A journal in a file, which one process uses at a time; see `opened_journal`.

    Args:
        descriptor: The file, open for reading and writing, and locked.
        path: Its name, for messages.
        key: What the products belong to: file, method and its parameters.

    Attributes:
        is_full: Whether the disk was too full for a product.
    """

    def __init__(self, descriptor: int, path: Path, key: str) -> None:
        self._descriptor, self._path = descriptor, path
        self.is_full = False
        head = _MAGIC + hashlib.sha256(key.encode()).digest()
        self._place = len(head)
        if os.pread(descriptor, len(head), 0) != head:
            os.ftruncate(descriptor, 0)
            self._write(0, head)

    def product(self, request: str, factor: np.ndarray, compute: Compute) -> np.ndarray:
        """Return the product that was asked for before, or compute and keep it.

        Args:
            request: What is multiplied, and how.
            factor: The factor, which with ``request`` determines the product.
            compute: Computes it, of two dimensions, float64 or complex128.

        Raises:
            ResultError: If the disk is full.
        """
        digest = hashlib.sha256(request.encode())
        digest.update(np.ascontiguousarray(factor).data)
        found = self._read(digest.digest())
        if found is not None:
            return found
        values = np.ascontiguousarray(compute())
        self._append(digest.digest(), values)
        return values

    def _read(self, request: bytes) -> np.ndarray | None:
        head = os.pread(self._descriptor, _HEADER.size, self._place)
        if len(head) < _HEADER.size:
            return None
        stored, rows, columns, is_complex, checksum = _HEADER.unpack(head)
        rest = os.fstat(self._descriptor).st_size - self._place - _HEADER.size
        dtype = np.dtype(np.complex128 if is_complex else np.float64)
        size = rows * columns * dtype.itemsize
        if stored != request or not 0 <= size <= rest:
            return None
        values = np.empty((rows, columns), dtype)
        done = os.preadv(self._descriptor, [_bytes(values)], self._place + _HEADER.size)
        if done < size or crc32(_bytes(values)) != checksum:
            return None
        self._place += _HEADER.size + size
        return values

    def _append(self, request: bytes, values: np.ndarray) -> None:
        head = _HEADER.pack(request, *values.shape, values.dtype.kind == "c", crc32(_bytes(values)))
        # What another course of the method has left here does not belong to this one.
        os.ftruncate(self._descriptor, self._place)
        # The header last: a kill between the two leaves zeros, which are no request.
        self._write(self._place + _HEADER.size, _bytes(values))
        self._write(self._place, head)
        self._place += _HEADER.size + values.nbytes

    def _write(self, place: int, data: bytes | memoryview) -> None:
        try:
            write_bytes(self._descriptor, place, np.frombuffer(data, np.uint8))
        except OSError as error:
            if not is_full_disk(error):
                raise
            self.is_full = True
            raise ResultError(
                f"{self._path} cannot be written: the disk or the quota is full. The products so "
                "far are kept; the same command continues when there is room."
            ) from error


def _bytes(values: np.ndarray) -> memoryview:
    return values.reshape(-1).view(np.uint8).data


@contextlib.contextmanager
def opened_journal(path: Path, key: str) -> Iterator[FileJournal]:
    """Open the journal of a method, or begin it; remove it at the end, unless it is interrupted.

    A method that refuses the matrix would do so again. One that is killed, or for whose products
    the disk is too small, continues from the journal.

    Args:
        path: The file.
        key: What the products belong to; a journal of something else begins anew.

    Raises:
        BeingWrittenError: If another process uses it.
        OSError: If it cannot be created.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BeingWrittenError(f"Another process uses {path}.") from None
        journal = FileJournal(descriptor, path, key)
        try:
            yield journal
        except ResultError:
            if not journal.is_full:
                path.unlink(missing_ok=True)
            raise
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
