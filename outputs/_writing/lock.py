"""The right to write a file: one process has it at a time, and it dies with that process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from outputs._errors import BeingWrittenError, ResultError
from outputs._storage.files import translated

# What file systems without locks answer.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class Owner:
    """Who writes a file.

    Attributes:
        host: Name of the machine.
        pid: Process there.
        token: Tells this claim from every other.
    """

    host: str
    pid: int
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def has_ended(self) -> bool:
        """Whether the process is known to be gone; of another machine nothing is known."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


class Claim:
    """The right to write a file, until it is released or its process dies.

    The kernel's lock on the file decides. A small file beside it, ``<file>.owner``, says who has
    it: for the message that another process gets, and as a fence, because a network file system
    takes the lock from a machine that it has lost sight of, and that machine may still be writing.

    Where the file system has no locks, the owner file alone decides: a claim then outlives a
    process that died on another machine, and the message says what to remove.

    Args:
        path: The file.

    Raises:
        BeingWrittenError: If another process has claimed it.
        ResultError: If the file cannot be opened for writing, or has been replaced meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record = owner_path(path)
        self._owner = Owner(socket.gethostname(), os.getpid(), uuid.uuid4().hex)
        self._signed: tuple[int, int, int] | None = None
        self._descriptor: int | None = _opened(path)
        try:
            self._lock(self.descriptor)
            self._sign()
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    @property
    def descriptor(self) -> int:
        """The file, opened for reading and writing.

        Raises:
            ResultError: If the claim has been released.
        """
        if self._descriptor is None:
            raise ResultError(f"{self.path} is not claimed any more.")
        return self._descriptor

    def require(self) -> None:
        """Checks that nobody else has taken the file over.

        Raises:
            BeingWrittenError: If somebody has.
        """
        if self._is_as_signed():
            return
        found = read_owner(self.path)
        if found is None:  # removed, by somebody who tidied up
            self._sign()
        elif found != self._owner:
            raise BeingWrittenError(
                f"{self.path} has been taken over by {found}; this process ({self._owner}) writes "
                "no more."
            )

    def _is_as_signed(self) -> bool:
        # Opened, not only asked for: that is when a network file system looks again.
        try:
            descriptor = os.open(self._record, os.O_RDONLY)
        except OSError:
            return False
        try:
            return _identity(os.fstat(descriptor)) == self._signed
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Gives the file back. Again is allowed."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            if read_owner(self.path) == self._owner:
                self._record.unlink(missing_ok=True)
        self._close()

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = read_owner(self.path)
            raise BeingWrittenError(
                f"{self.path} is being written by {owner or 'another process'}."
            ) from None
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            self._require_no_owner()
        # A writer that finished between opening and locking has taken the name away.
        with translated(self.path):
            if not os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                raise BeingWrittenError(f"{self.path} was replaced by another process just now.")

    def _require_no_owner(self) -> None:
        owner = read_owner(self.path)
        if owner is not None and not owner.has_ended:
            raise BeingWrittenError(
                f"{self.path} is being written by {owner}, as {self._record} says. This file "
                f"system has no locks: if that process is gone, remove {self._record}."
            )

    def _sign(self) -> None:
        scratch = self._record.with_name(f"{self._record.name}.{self._owner.token[:8]}")
        with translated(self._record):
            try:
                scratch.write_text(json.dumps(asdict(self._owner)))
                self._signed = _identity(scratch.stat())
                scratch.replace(self._record)
            finally:
                scratch.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    """What tells a file from one that has taken its place, or has been written since."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def owner_path(path: Path) -> Path:
    """The file that says who writes ``path``."""
    return path.with_name(f"{path.name}.owner")


def read_owner(path: Path) -> Owner | None:
    """Who claimed a file last; None where nobody did, or the record cannot be read."""
    try:
        found = json.loads(owner_path(path).read_bytes())
        return Owner(str(found["host"]), int(found["pid"]), str(found["token"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR)
    except OSError as error:
        raise ResultError(f"{path} cannot be opened for writing: {error.strerror}.") from error
