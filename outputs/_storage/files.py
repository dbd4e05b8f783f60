"""Open, seal and publish files; the only module that defines names on disk."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import h5py

from outputs._errors import (
    ResultError,
    ResultExistsError,
    ResultNotFoundError,
    TruncatedResultError,
)
from outputs._storage.written_files import WrittenFile

# Measured with h5py 3.16 on HDF5 2.0 (docs/file-format.md): a low bound of v110 or later writes
# superblock 3, whose "open for write" flag survives a SIGKILL and locks the file out. The low
# bound is pinned here because HDF5 2.0 raised its own default and may raise it again.
LIBVER = ("earliest", "v108")

# Adjacent slices of one tile should find it in the cache.
_READ_CACHE_BYTES = 64 * 2**20

SCRATCH_NAMES = re.compile(r"\.[0-9a-f]{8}\.new$")
# The errors of file systems that flush files, but not directories.
_WITHOUT_FSYNC = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)

# Parts of the operating system's messages, which HDF5 quotes in its own.
# What lies beyond the end of a file is read as zeros, which no heap of names is.
_TRUNCATED = ("truncated file", "free block size is zero")
_FULL = ("No space left", "Disk quota exceeded", "File too large")


def part_path(path: str | os.PathLike[str]) -> Path:
    """Return the name of a result until it is complete."""
    path = Path(path)
    return path.with_name(path.name + ".part")


def scratch_path(path: Path) -> Path:
    """Return a unique name beside ``path`` for a file that is not yet sealed."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.new")


def create_file(
    path: Path, libver: tuple[str, str] = LIBVER, *, user_block: int = 0
) -> WrittenFile:
    """Create an HDF5 file; by default in a format that stays usable if the writer is killed.

    Args:
        path: A path at which no file exists yet.
        libver: Bounds of the HDF5 format version.
        user_block: Bytes at the beginning that HDF5 leaves alone: 0, or a power of two from 512.

    Raises:
        ResultError: If the file cannot be created.
    """
    with translated(path):
        return WrittenFile(path, create=True, libver=libver, user_block=user_block)


def open_file(path: Path, mode: Literal["r", "r+"], libver: tuple[str, str] = LIBVER) -> h5py.File:
    """Open an existing HDF5 file.

    HDF5's locks are disabled: readers read sealed files, a watcher must never stop the writer, and
    HDF5 refuses to read a file that the same process has locked. `Claim` is the lock of a writer.

    Args:
        path: The file.
        mode: ``r`` to read, ``r+`` to read and write.
        libver: Bounds of the HDF5 format version.

    Raises:
        ResultNotFoundError: If there is no such file.
        ResultError: If it is not an HDF5 file, or is damaged.
    """
    if not path.is_file():
        raise ResultNotFoundError(f"There is no file {path}.")
    with translated(path):
        if not h5py.is_hdf5(path):
            raise ResultError(f"{path} is not an HDF5 file, or its beginning is damaged.")
        if mode == "r+":
            return WrittenFile(path, create=False, libver=libver)
        return h5py.File(path, mode, libver=libver, locking=False, rdcc_nbytes=_READ_CACHE_BYTES)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Convert the exceptions that h5py raises about a file to one sentence that names the file.

    Raises:
        ResultError: In place of OSError, RuntimeError and KeyError.
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        raise _as_result_error(path, error) from error


@contextlib.contextmanager
def parsed(path: Path) -> Iterator[None]:
    """Convert any exception that a file's content provokes to one sentence that names the file.

    For headers, tables and records, which may come from any source; not for a caller's arguments,
    whose errors must keep their type.

    Raises:
        ResultError: In place of every other exception.
    """
    try:
        yield
    except ResultError:
        raise
    except Exception as error:
        raise _as_result_error(path, error) from error


def _as_result_error(path: Path, error: Exception) -> ResultError:
    is_truncated = any(sign in str(error) for sign in _TRUNCATED)
    return (TruncatedResultError if is_truncated else ResultError)(_sentence(path, error))


def seal(path: Path) -> None:
    """Flush a closed file and its directory entry to the disk."""
    _fsync(path)
    _fsync(path.parent)


def put_in_place(source: Path, target: Path) -> None:
    """Rename a sealed file atomically, onto an existing one if there is one."""
    os.replace(source, target)
    _fsync(target.parent)


def publish(source: Path, target: Path) -> None:
    """Rename a sealed file atomically, never onto an existing one.

    Raises:
        ResultExistsError: If ``target`` exists; ``source`` is left as it is.
    """
    try:
        # A hard link refuses an existing target, which a rename on POSIX silently replaces.
        os.link(source, target)
    except FileExistsError:
        raise ResultExistsError(f"{target} already exists.") from None
    except OSError:  # a file system without hard links
        if target.exists():
            raise ResultExistsError(f"{target} already exists.") from None
        os.rename(source, target)
    else:
        os.unlink(source)
    _fsync(target.parent)


def require_space(directory: Path, needed: int, what: str) -> None:
    """Check that the disk has enough free space.

    Args:
        directory: A directory on the disk.
        needed: Bytes that will be written.
        what: The beginning of the message, for example "The file takes".

    Raises:
        ResultError: If less is free.
    """
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise ResultError(f"{what} {needed} bytes; {free} are free in {directory}.")


def is_full_disk(error: BaseException) -> bool:
    """Return whether an error, or its cause, reports that a disk or a quota is full."""
    causes = (error, error.__cause__)
    return any(sign in str(cause) for cause in causes if cause for sign in _FULL)


def _full_disk(path: Path) -> str:
    with contextlib.suppress(OSError):
        state, free = path.stat(), shutil.disk_usage(path.parent).free
        needed = max(0, state.st_size - state.st_blocks * 512)
        return (
            f"{path} cannot be written further: the disk or the quota is full. About {needed} "
            f"bytes more are needed, {free} are free; no committed block is lost, and the same "
            f"command resumes when there is room."
        )
    return f"{path} cannot be written: the disk or the quota is full."


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _WITHOUT_FSYNC or not path.is_dir():
            raise
        warnings.warn(
            f"The file system of {path} cannot flush a directory (fsync: {error.strerror}): after "
            "a loss of power the name of a new file may be missing.",
            RuntimeWarning,
            # With one place in the source, Python prints it once.
            stacklevel=1,
        )
    finally:
        os.close(descriptor)


def _sentence(path: Path, error: Exception) -> str:
    text = str(error)
    if "unable to lock file" in text:
        return f"{path} is being written by another process."
    if any(sign in text for sign in _TRUNCATED):
        return f"{path} is truncated: its end is missing."
    if isinstance(error, PermissionError):
        return f"{path} may not be opened: permission denied."
    if is_full_disk(error):
        return _full_disk(path)
    return f"{path} is damaged or cannot be accessed ({text.strip(chr(34))})."
