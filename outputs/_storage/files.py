"""Open, seal and publish files; the only module that defines names on disk."""

from __future__ import annotations

import contextlib
import ctypes
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
)
from outputs._storage.superblock import require_end
from outputs._storage.written_files import WrittenFile

# Measured with h5py 3.16 on HDF5 2.0 (docs/resuming.md): a low bound of v110 or later writes
# superblock 3, whose "open for write" flag survives a SIGKILL and locks the file out. The low
# bound is pinned here because HDF5 2.0 raised its own default and may raise it again.
LIBVER = ("earliest", "v108")

# Adjacent slices of one tile should find it in the cache.
_READ_CACHE_BYTES = 64 * 2**20

SCRATCH_NAMES = re.compile(r"\.[0-9a-f]{8}\.new$")
# The errors of file systems that do not flush directories, reserve no space, or cannot refuse to
# replace a name.
_WITHOUT_SUPPORT = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
# Only Linux has this function, and Python does not expose it.
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1

# Parts of the operating system's messages, which HDF5 quotes in its own.
_FULL = ("No space left", "Disk quota exceeded", "File too large")


def part_path(path: str | os.PathLike[str]) -> Path:
    """Return the name of a result until it is complete."""
    path = Path(path)
    return path.with_name(path.name + ".part")


@contextlib.contextmanager
def scratch_file(path: Path) -> Iterator[Path]:
    """Yield a unique name beside ``path`` for a file or directory that is not complete yet.

    What still has the name at the end is removed. What a killed process leaves under such a name,
    the next process that locks the directory removes (`outputs._writing.directories`).

    Args:
        path: The name that it will have.
    """
    scratch = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        yield scratch
    finally:
        # A failure to remove it would hide that of the body.
        with contextlib.suppress(OSError):
            remove_tree(scratch)


def remove_tree(path: Path) -> None:
    """Remove a file, or a directory with what it contains, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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
        require_end(path)
        if mode == "r+":
            return WrittenFile(path, create=False, libver=libver)
        while True:
            try:
                cache = _READ_CACHE_BYTES
                return h5py.File(path, mode, libver=libver, locking=False, rdcc_nbytes=cache)
            except OSError as error:
                # HDF5 gives up where Python tries again: when a signal arrives.
                if error.errno != errno.EINTR:
                    raise


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Convert the exceptions that h5py raises about a file to one sentence that names the file.

    Raises:
        ResultError: In place of OSError, RuntimeError and KeyError.
        KeyboardInterrupt: Ctrl-C has come while h5py called Python.
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        raise ResultError(_sentence(path, error)) from error
    except SystemError as error:
        _raise_interruption(error)
        raise


@contextlib.contextmanager
def parsed(path: Path) -> Iterator[None]:
    """Convert any exception that a file's content provokes to one sentence that names the file.

    For headers, tables and records, which may come from any source; not for a caller's arguments,
    whose errors must keep their type.

    Raises:
        ResultError: In place of every other exception.
        KeyboardInterrupt: Ctrl-C has come while h5py called Python.
    """
    try:
        yield
    except ResultError:
        raise
    except Exception as error:
        _raise_interruption(error)
        raise ResultError(_sentence(path, error)) from error


def seal(path: Path) -> None:
    """Flush a closed file and its directory entry to the disk."""
    _fsync(path)
    _fsync(path.parent)


def reserve_space(path: Path) -> None:
    """Reserve the disk space of a file of its size, where the file system can.

    Writes into reserved space take half the time (measured on ext4), and one call for the whole
    file takes a tenth of the time of a call before each block. A disk that is full says so here.

    Raises:
        OSError: If the disk has no room for the file.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with open(path, "r+b") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in _WITHOUT_SUPPORT:
                raise


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
        _rename_to_free_name(source, target)
    except FileExistsError:
        raise ResultExistsError(f"{target} already exists.") from None
    _fsync(target.parent)


def _rename_to_free_name(source: Path, target: Path) -> None:
    """Rename a file; raise FileExistsError if the name is taken, which POSIX would replace."""
    if _renameat2 is not None:
        names = os.fsencode(source), os.fsencode(target)
        if not _renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE):
            return
        number = ctypes.get_errno()
        if number not in _WITHOUT_SUPPORT:
            raise OSError(number, os.strerror(number), str(target))
    try:
        # A kill between these two leaves both names.
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError(target) from None
        os.rename(source, target)
    else:
        os.unlink(source)


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
    return (
        f"{path} cannot be written: the disk or the quota is full; the same command begins it "
        "again when there is room."
    )


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _WITHOUT_SUPPORT or not path.is_dir():
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


def _raise_interruption(error: Exception) -> None:
    """Raise the interruption that is the cause of an error, if one is.

    Python makes a SystemError of what a handler of signals raises between two steps of C.
    """
    if isinstance(error, SystemError) and isinstance(error.__cause__, KeyboardInterrupt):
        raise error.__cause__.with_traceback(None) from None


def _sentence(path: Path, error: Exception) -> str:
    text = str(error)
    if "unable to lock file" in text:
        return f"{path} is being written by another process."
    if "file signature not found" in text:
        return f"{path} is not an HDF5 file, or its beginning is damaged."
    if isinstance(error, PermissionError):
        return f"{path} may not be opened: permission denied."
    if is_full_disk(error):
        return _full_disk(path)
    return f"{path} is damaged or cannot be accessed ({text.strip(chr(34))})."
