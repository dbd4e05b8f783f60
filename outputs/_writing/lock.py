"""Lock a file for writing: one process at a time, until it releases the lock or dies."""

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
from outputs._storage.files import scratch_file, translated

# The errors of file systems without locks.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class _Owner:
    """The process that writes a file.

    Attributes:
        host: Name of the machine.
        pid: Process identifier on that machine.
        token: Unique identifier of the claim.
        started: When the process started, in the kernel's ticks since it booted; empty if unknown.
        boot: Identifier of the boot of the machine; empty if unknown.
    """

    host: str
    pid: int
    token: str
    started: str = ""
    boot: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def has_ended(self) -> bool:
        """Whether the process is known to have ended; False if it ran on another machine.

        The number of a process is given again, in a restarted container usually to the same
        program; a process is the same only with the same start.
        """
        if self.host != socket.gethostname():
            return False
        if self.boot and self.boot != (_boot() or self.boot):
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return bool(self.started) and self.started != (_start_of(self.pid) or self.started)


class Claim:
    """The exclusive right to write a file, until it is released or the process dies.

    The kernel's lock on the file decides. A small file beside it, ``<file>.owner``, names the
    process: for the message that another process prints, and as a fence, because a network file
    system revokes the lock of a machine that it cannot reach, and that machine may still be
    writing.

    If the file system has no locks, the owner file alone decides: a claim then outlives a
    process that died on another machine, and the message says which file to remove.

    Args:
        path: The file.

    Raises:
        BeingWrittenError: If another process has claimed it.
        ResultError: If the file cannot be opened for writing, or has been replaced meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record = _owner_path(path)
        self._owner = _Owner(
            host=socket.gethostname(),
            pid=os.getpid(),
            token=uuid.uuid4().hex,
            started=_start_of(os.getpid()),
            boot=_boot(),
        )
        self._signed: tuple[int, int, int] | None = None
        self._descriptor: int | None = _opened(path)
        try:
            self._lock(self.descriptor)
            self._size = os.fstat(self.descriptor).st_size
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
        """The descriptor of the file, open for reading and writing.

        Raises:
            ResultError: If the claim has been released.
        """
        if self._descriptor is None:
            raise ResultError(f"{self.path} is no longer claimed.")
        return self._descriptor

    def require(self) -> None:
        """Check that no other process has taken the file over, and that it is in its place.

        Raises:
            BeingWrittenError: If another process has.
            ResultError: If the path no longer names the file, or it has become shorter.
        """
        self.require_place()
        if self._is_as_signed():
            return
        found = _read_owner(self.path)
        if found is None:  # a user has removed the owner file
            self._sign()
        elif found != self._owner:
            raise BeingWrittenError(
                f"{self.path} has been taken over by {found}; this process ({self._owner}) stops "
                "writing."
            )

    def require_place(self) -> None:
        """Check that the path still names the claimed file, and that none of it is missing.

        Programs that restore or synchronise directories replace files while they are written, and
        what is written afterwards would be in a file without a name.

        Raises:
            ResultError: If it does not.
        """
        if change := self._change():
            raise ResultError(
                f"{self.path} was {change} by another program while this job wrote it; nothing "
                "becomes a finished result. The same command continues with what is there now, "
                "overwrite=true begins again; exclude *.part from what restores or synchronises "
                "this directory."
            )

    def owns(self, path: Path) -> bool:
        """Return whether a path names the claimed file."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), os.stat(path))
        except FileNotFoundError:
            return False

    def _change(self) -> str:
        with translated(self.path):
            if not self.path.exists():
                return "removed"
            if not self.owns(self.path):
                return "replaced"
            return "cut short" if os.fstat(self.descriptor).st_size < self._size else ""

    def _is_as_signed(self) -> bool:
        # Open the file, because a network file system revalidates its cache on open, not on stat.
        try:
            descriptor = os.open(self._record, os.O_RDONLY)
        except OSError:
            return False
        try:
            return _identity(os.fstat(descriptor)) == self._signed
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Release the claim; has no effect if it is released already."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            if _read_owner(self.path) == self._owner:
                self._record.unlink(missing_ok=True)
        self._close()

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _read_owner(self.path)
            raise BeingWrittenError(
                f"{self.path} is being written by {owner or 'another process'}."
            ) from None
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            self._require_no_owner()
        # A writer that finished between opening and locking has renamed the file.
        with translated(self.path):
            if not os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                raise BeingWrittenError(f"{self.path} was replaced by another process just now.")

    def _require_no_owner(self) -> None:
        owner = _read_owner(self.path)
        if owner is not None and not owner.has_ended:
            raise BeingWrittenError(
                f"{self.path} is being written by {owner}, as {self._record} says. This file "
                f"system has no locks: if that process is gone, remove {self._record}."
            )

    def _sign(self) -> None:
        with translated(self._record), scratch_file(self._record) as scratch:
            scratch.write_text(json.dumps(asdict(self._owner)))
            self._signed = _identity(scratch.stat())
            scratch.replace(self._record)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    """Return values that change when a file is replaced or written."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def _owner_path(path: Path) -> Path:
    """Return the path of the file that names the process writing ``path``."""
    return path.with_name(f"{path.name}.owner")


def owner_files(directory: Path) -> list[Path]:
    """Return the files of a directory that name processes, those of before included."""
    return sorted(directory.glob("*.part.owner*"))


def _read_owner(path: Path) -> _Owner | None:
    """Return the last owner of a file; None if there is no owner file, or it is unreadable."""
    try:
        found = json.loads(_owner_path(path).read_bytes())
        origin = {name: str(found.get(name, "")) for name in ("started", "boot")}
        return _Owner(str(found["host"]), int(found["pid"]), str(found["token"]), **origin)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _start_of(pid: int) -> str:
    """Return when a process started; empty if the system does not say it."""
    try:
        # The second field, the name of the program, may contain anything.
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR)
    except OSError as error:
        raise ResultError(f"{path} cannot be opened for writing: {error.strerror}.") from error
