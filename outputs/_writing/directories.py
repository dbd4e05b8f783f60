"""Lock a directory of results, and remove what killed writers have left in it.

The one rule for leftovers: what is not complete yet has a name of its own (``.part``, or a scratch
name), and the process that makes it holds the lock of the directory. So a process that gets the
exclusive lock removes what has such a name, except what can be resumed.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from outputs._errors import BeingWrittenError
from outputs._storage.files import SCRATCH_NAMES, part_path, remove_tree, scratch_file
from outputs._writing.lock import Claim, owner_files

# The errors of file systems without locks on directories; NFS has locks on writable files only.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL)


@contextmanager
def claimed_directory(directory: Path) -> Iterator[bool]:
    """Hold the lock of a directory while the body runs; it ends with the process as well.

    Args:
        directory: The directory.

    Yields:
        Whether the directory is locked: False where the file system has no such locks.

    Raises:
        BeingWrittenError: If another process holds the lock.
        OSError: If the directory cannot be opened.
    """
    with _opened(directory) as descriptor:
        yield _is_locked(descriptor, directory, fcntl.LOCK_EX)


@contextmanager
def shared_directory(target: Path) -> Iterator[None]:
    """Hold the lock of a directory together with others, each of which makes another file in it.

    What killed processes have left of this file is removed before, unless others hold the lock.

    Args:
        target: The path of the file.

    Raises:
        BeingWrittenError: If another process holds the lock for itself.
        OSError: If the directory cannot be opened.
    """
    directory = target.parent
    with _opened(directory) as descriptor:
        with suppress(BeingWrittenError):
            if _is_locked(descriptor, directory, fcntl.LOCK_EX):
                remove_orphans(directory, target.name)
        _is_locked(descriptor, directory, fcntl.LOCK_SH)
        yield


@contextmanager
def scratch_for(target: Path) -> Iterator[Path]:
    """Yield a scratch name for a file or directory that a command makes, and then renames.

    Args:
        target: The name that it will have.
    """
    with ExitStack() as held:
        # Where a job computes, its lock keeps others from removing scratch files.
        with suppress(BeingWrittenError, OSError):
            held.enter_context(shared_directory(target))
        yield held.enter_context(scratch_file(target))


def remove_orphans(directory: Path, name: str = "") -> list[Path]:
    """Remove the files of writers that were killed; finished and unfinished results stay.

    These are layouts, copies and other files that did not get their name, the names of former
    owners, and the ``.part`` of a result that is finished.

    Args:
        directory: A directory whose lock this process holds.
        name: Only what belongs to the file of this name is removed; empty for all.

    Returns:
        What was removed. What may not be removed stays.
    """
    found = [path for path in directory.iterdir() if SCRATCH_NAMES.search(path.name)]
    for part in sorted(directory.glob("*.part")):
        if not part.with_suffix("").is_file() or not _is_of(part, name):
            continue
        try:
            with Claim(part):
                part.unlink()
        except (BeingWrittenError, OSError):
            continue
        found.append(part)
    found += [path for path in owner_files(directory) if not _part_of(path).exists()]
    return [path for path in found if _is_of(path, name) and _is_gone(path)]


def _is_of(path: Path, name: str) -> bool:
    return not name or path.name.startswith(f"{name}.")


def _part_of(owner_file: Path) -> Path:
    return part_path(owner_file.with_name(owner_file.name.partition(".part")[0]))


def _is_gone(path: Path) -> bool:
    try:
        remove_tree(path)
    except OSError:
        return False
    return True


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int, directory: Path, kind: int) -> bool:
    """Lock an open directory, or change the kind of its lock; return whether there are locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BeingWrittenError(f"Another process writes in {directory}.") from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        return False
    return True
