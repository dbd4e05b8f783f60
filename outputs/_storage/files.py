"""Opening, sealing and publishing files; the only module that knows names on disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import h5py

from outputs._errors import ResultError, ResultExistsError, ResultNotFoundError

# Measured with h5py 3.16 on HDF5 2.0 (docs/file-format.md): a low bound of v110 or later writes
# superblock 3, whose "open for write" flag survives a SIGKILL and locks the file out. The low
# bound is pinned here because HDF5 2.0 raised its own default and may raise it again.
LIBVER = ("earliest", "v108")

# Tiles pass through HDF5 whole and once on their way out; on the way in, neighbouring slices of
# one tile should find it again.
_WRITE_CACHE_BYTES = 0
_READ_CACHE_BYTES = 64 * 2**20

# What the system says, inside HDF5's own sentences.
_FULL = ("No space left", "Disk quota exceeded", "File too large")


def part_path(path: str | os.PathLike[str]) -> Path:
    """The name that a result carries until it is complete."""
    path = Path(path)
    return path.with_name(path.name + ".part")


def scratch_path(path: Path) -> Path:
    """A name beside ``path`` that nobody else uses, for a file that is not yet sealed."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.new")


def create_file(path: Path, libver: tuple[str, str] = LIBVER) -> h5py.File:
    """Creates an HDF5 file; by default one that a killed writer leaves readable and writable."""
    with translated(path):
        return h5py.File(path, "x", libver=libver, locking=False, rdcc_nbytes=_WRITE_CACHE_BYTES)


def open_file(path: Path, mode: Literal["r", "r+"]) -> h5py.File:
    """Opens an existing HDF5 file.

    HDF5 takes no lock: what readers read is sealed, a watcher must never stop the writer, and
    HDF5 refuses to read in a process what the same process holds locked. See ``Claim``.

    Raises:
        ResultNotFoundError: If there is no such file.
        ResultError: If it is no HDF5 file, or damaged.
    """
    if not path.is_file():
        raise ResultNotFoundError(f"There is no file {path}.")
    with translated(path):
        if not h5py.is_hdf5(path):
            raise ResultError(f"{path} is not an HDF5 file, or its beginning is damaged.")
        cache = _READ_CACHE_BYTES if mode == "r" else _WRITE_CACHE_BYTES
        return h5py.File(path, mode, libver=LIBVER, locking=False, rdcc_nbytes=cache)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns what h5py raises about a file into one sentence that names the file.

    Raises:
        ResultError: In place of OSError, RuntimeError and KeyError.
    """
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        raise ResultError(_sentence(path, error)) from error


@contextlib.contextmanager
def parsed(path: Path) -> Iterator[None]:
    """Turns whatever the content of a file can provoke into one sentence that names the file.

    For headers, tables and records, which anybody may have written; not for what a caller asks.

    Raises:
        ResultError: In place of every other exception.
    """
    try:
        yield
    except ResultError:
        raise
    except Exception as error:
        raise ResultError(_sentence(path, error)) from error


def seal(path: Path) -> None:
    """Brings a closed file and its directory entry to the disk."""
    _fsync(path)
    _fsync(path.parent)


def publish(source: Path, target: Path) -> None:
    """Renames a sealed file atomically, never onto an existing one.

    Raises:
        ResultExistsError: If ``target`` exists; ``source`` is left as it is.
    """
    try:
        # A hard link refuses an existing target, which a rename on POSIX replaces in silence.
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
    """Refuses to begin what the disk cannot hold.

    Args:
        directory: Where it is to stand.
        needed: Bytes.
        what: The beginning of the sentence.

    Raises:
        ResultError: If less is free.
    """
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise ResultError(f"{what} {needed} bytes; {free} are free in {directory}.")


def is_full_disk(error: BaseException) -> bool:
    """Whether an error, or what it comes from, says that a disk or a quota is full."""
    causes = (error, error.__cause__)
    return any(sign in str(cause) for cause in causes if cause for sign in _FULL)


def _full_disk(path: Path) -> str:
    with contextlib.suppress(OSError):
        state, free = path.stat(), shutil.disk_usage(path.parent).free
        needed = max(0, state.st_size - state.st_blocks * 512)
        return (
            f"{path} cannot be written on: the disk or the quota is full. About {needed} bytes "
            f"more are needed, {free} are free; nothing that was committed is lost, and the same "
            f"command goes on when there is room."
        )
    return f"{path} cannot be written: the disk or the quota is full."


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sentence(path: Path, error: Exception) -> str:
    text = str(error)
    if "unable to lock file" in text:
        return f"{path} is being written by another process."
    if "truncated file" in text:
        return f"{path} is truncated: its end is missing."
    if isinstance(error, PermissionError):
        return f"{path} may not be opened: permission denied."
    if is_full_disk(error):
        return _full_disk(path)
    return f"{path} is damaged or cannot be accessed ({text.strip(chr(34))})."
