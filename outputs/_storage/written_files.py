"""Files that HDF5 writes: a failing write ends in one exception, and never inside HDF5.

When a write of HDF5 itself fails, on a full disk for example, HDF5 cannot close the file any more
and ends the process in a segmentation fault (measured with HDF5 2.0). So HDF5 writes through an
object that keeps the first failure to itself and drops what is written afterwards; closing the file
raises the failure.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from outputs._storage.raw_bytes import read_bytes, write_bytes

NEW = os.O_CREAT | os.O_EXCL
"""The flags of `DeferringFile` for a file that does not exist yet."""

# The kernel copies to and from pages; at an odd offset that takes up to twice as long (measured).
# So whatever has this size begins with a page.
_LEAST_ALIGNED = 2**18
_PAGE = 2**12

_VERSIONS = {
    "earliest": h5py.h5f.LIBVER_EARLIEST,
    "v108": h5py.h5f.LIBVER_V18,
    "v110": h5py.h5f.LIBVER_V110,
}


class WrittenFile(h5py.File):
    """An HDF5 file that is open for reading and writing.

    HDF5 does not lock it. Tiles are written whole and once, so it has no cache of them.

    Args:
        path: The file.
        create: Whether to create it; then no file may exist at ``path``.
        libver: Bounds of the HDF5 format version.
        user_block: Bytes before HDF5's own that are left alone, in a file to create.

    Raises:
        OSError: If the file cannot be opened, or is not an HDF5 file.
    """

    def __init__(
        self, path: Path, *, create: bool, libver: tuple[str, str], user_block: int = 0
    ) -> None:
        self._stored = DeferringFile(path, NEW if create else 0)
        try:
            access = _access(self._stored, libver, user_block)
            name = os.fsencode(path)
            if create:
                creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
                creation.set_userblock(user_block)
                found = h5py.h5f.create(name, h5py.h5f.ACC_TRUNC, creation, access)
            else:
                found = h5py.h5f.open(name, h5py.h5f.ACC_RDWR, access)
            super().__init__(found)
        except BaseException:
            self._stored.close()
            raise
        _open_files.add(self)

    def require_written(self) -> None:
        """Check that no write has failed, so as not to write on in vain.

        Raises:
            OSError: If one has.
        """
        self._stored.require_written()

    def close(self) -> None:
        """Close the file and all objects in it.

        Raises:
            OSError: If a write has failed; the file is closed nevertheless.
        """
        if self.id.valid:
            super().close()
            self._stored.close()


class DeferringFile:
    """A file object for h5py: writing to it never fails, leaving its context raises the failure.

    Args:
        path: The file, which is opened for reading and writing.
        flags: Further flags of `os.open`.

    Attributes:
        failure: The first error of a write; everything after it is dropped.
    """

    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | flags, 0o666)
        self._place = 0
        # The size as HDF5 knows it, whatever was dropped, and that of what is stored.
        self._size = self._stored = os.fstat(self._descriptor).st_size
        self.failure: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return str(self._path)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset if whence == os.SEEK_SET else self._size + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, target: Any) -> int:
        values = np.frombuffer(target, np.uint8)
        done = read_bytes(self._descriptor, self._place, values)
        # HDF5 expects zeros behind the end of a file.
        values[done:] = 0
        return len(values)

    def read(self, size: int = -1) -> bytes:
        """Read bytes at the current place, up to the end of the file."""
        rest = max(0, self._size - self._place)
        values = np.empty(rest if size < 0 else min(rest, size), np.uint8)
        self.readinto(values)
        return values.tobytes()

    def write(self, source: Any) -> int:
        values = np.frombuffer(source, np.uint8)
        self._size = max(self._size, self._place + len(values))
        self._change(self._size, lambda: write_bytes(self._descriptor, self._place, values))
        return len(values)

    def truncate(self, size: int) -> int:
        self._size = size
        self._change(size, lambda: os.ftruncate(self._descriptor, size))
        return size

    def _change(self, size: int, change: Callable[[], None]) -> None:
        """Change the file, which then has a size, unless an earlier change has failed."""
        if self.failure is not None:
            return
        try:
            # Growing again, it would have zeros in place of what was cut off.
            if os.fstat(self._descriptor).st_size < self._stored:
                raise OSError("it was cut short by another program")
            change()
            self._stored = size
        except OSError as error:
            self.failure = error

    def flush(self) -> None:
        """Do nothing, because nothing is held back."""

    def require_written(self) -> None:
        """Raise the failure, if there is one."""
        if self.failure is not None:
            raise self.failure

    def close(self) -> None:
        """Close the file, and raise the failure."""
        os.close(self._descriptor)
        self.require_written()


def _access(stored: DeferringFile, libver: tuple[str, str], user_block: int) -> Any:
    properties = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    properties.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    properties.set_libver_bounds(*(_VERSIONS[each] for each in libver))
    elements, slots, _, preemption = properties.get_cache()
    properties.set_cache(elements, slots, 0, preemption)
    # HDF5 refuses both in one file.
    if not user_block:
        properties.set_alignment(_LEAST_ALIGNED, _PAGE)
    properties.set_fileobj_driver(h5py.h5fd.fileobj_driver, stored)
    return properties


# At the end of a process HDF5 closes what is open, when Python cannot run its driver any more.
_open_files: weakref.WeakSet[WrittenFile] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for file in list(_open_files):
        with contextlib.suppress(Exception):
            file.close()
