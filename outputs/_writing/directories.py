"""Lock a directory of results, and remove what killed writers have left in it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outputs._errors import BeingWrittenError
from outputs._storage.files import SCRATCH_NAMES, part_path
from outputs._writing.lock import Claim, owner_files

# The errors of file systems without locks on directories; NFS has locks on writable files only.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL)


@contextmanager
def claimed_directory(directory: Path, *, is_shared: bool = False) -> Iterator[bool]:
    """Hold the lock of a directory while the body runs; it ends with the process as well.

    Args:
        directory: The directory.
        is_shared: Whether others may share the lock, for writers of single files, which are
            locked themselves.

    Yields:
        Whether the directory is locked: False where the file system has no such locks.

    Raises:
        BeingWrittenError: If another process holds the lock.
        OSError: If the directory cannot be opened.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    is_locked = True
    try:
        try:
            kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BeingWrittenError(f"Another process writes in {directory}.") from None
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            is_locked = False
        yield is_locked
    finally:
        os.close(descriptor)


def remove_orphans(directory: Path) -> list[Path]:
    """Remove the files of writers that were killed; finished and unfinished results stay.

    These are layouts and compressed copies that did not get their name, the names of former
    owners, and the ``.part`` of a result that is finished.

    Args:
        directory: A directory whose lock this process holds.

    Returns:
        What was removed. What may not be removed stays.
    """
    found = [path for path in directory.iterdir() if SCRATCH_NAMES.search(path.name)]
    for part in sorted(directory.glob("*.part")):
        if not part.with_suffix("").is_file():
            continue
        try:
            with Claim(part):
                part.unlink()
        except (BeingWrittenError, OSError):
            continue
        found.append(part)
    found += [path for path in owner_files(directory) if not _part_of(path).exists()]
    return [path for path in found if _is_gone(path)]


def _part_of(owner_file: Path) -> Path:
    return part_path(owner_file.with_name(owner_file.name.partition(".part")[0]))


def _is_gone(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True
