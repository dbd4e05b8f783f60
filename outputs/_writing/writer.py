"""Write a result block by block, so that a kill loses at most the block being written."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from outputs._errors import (
    FingerprintMismatchError,
    ResultError,
    ResultExistsError,
    ResultNotFoundError,
    UnfinishedResultError,
)
from outputs._format.axes import Axis
from outputs._format.creation import create, stored_bytes, write_execution, write_strategy
from outputs._format.description import ResultDescription
from outputs._format.digests import (
    clear_finish,
    require_sound_creation,
    write_finish_digest,
)
from outputs._format.reading import read_shard, require_ours
from outputs._format.tables import read_attribute
from outputs._scanning.checksums import Examined, block_checksum
from outputs._scanning.reference import Reference
from outputs._storage.files import (
    open_file,
    parsed,
    part_path,
    publish,
    require_space,
    reserve_space,
    scratch_file,
    seal,
    translated,
)
from outputs._storage.memory_order import in_c_order
from outputs._storage.regions import Region
from outputs._writing.compression import packed
from outputs._writing.direct_writes import Space
from outputs._writing.examination import examined, parts_of
from outputs._writing.lock import Claim
from outputs._writing.publishing import give_name, missing_on_disk

Fsync = Literal["end", "block"]


class ResultWriter:
    """The single writer of a result; made by ``create`` or ``resume``, closed by its context.

    Until the result is finished, the file is named ``<path>.part``. Its layout is sealed before the
    first block, and metadata does not change afterwards, so that the file survives a kill.

    Lines are counted in the whole matrix, even if the file holds only a shard of it.

    Attributes:
        path: Path of the finished result.
        part: Path of the unfinished file.
        axis: The axis along which blocks arrive, ``rows`` or ``columns``.
        damaged: The ranges of the axis whose blocks, written earlier, no longer have their
            checksum on the disk; they are missing again.
        nonfinite: The number of NaN and infinities in the blocks that were written earlier.
        first_nonfinite: The (row, column) of the first few of these.
    """

    def __init__(self, path: Path, claim: Claim, fsync: Fsync, found: Examined) -> None:
        self.path = path
        self.part = part_path(path)
        self._claim = claim
        self._fsync = fsync
        self._opened = time.monotonic()
        self._file = open_file(self.part, "r+")
        try:
            matrix, self.axis, self._ledger = parts_of(self._file)
            self._space = Space(matrix, claim.descriptor)
            self._shard = read_shard(self._file)
            # The first line of the file, counted in the whole matrix.
            self._origin = self._shard.start if self._shard else 0
            self._lines = self.axis.lines(matrix.shape)
            self.damaged = [
                (start + self._origin, stop + self._origin) for start, stop in found.damaged
            ]
            self.nonfinite = found.nonfinite
            down, across = (self._origin, 0) if self.axis == Axis.ROWS else (0, self._origin)
            self.first_nonfinite = [(row + down, column + across) for row, column in found.first]
            clear_finish(self._file)
            self._ledger.repair(claim.descriptor, set(found.damaged))
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        description: ResultDescription,
        *,
        fsync: Fsync = "end",
    ) -> ResultWriter:
        """Create ``<path>.part`` with the complete layout, seal it and open it for writing.

        Args:
            path: Path of the finished result.
            description: The description of the result.
            fsync: When the data are flushed to the disk: ``end`` after the layout and when
                finished, ``block`` also before and after each ledger entry, so that committed
                blocks survive a loss of power.

        Raises:
            ResultExistsError: If a finished or unfinished result exists at ``path`` already.
            ResultNotFoundError: If the directory of ``path`` does not exist.
            ResultError: If the file cannot be created, or the disk has no room for it.
        """
        _require_fsync(fsync)
        path = Path(path).absolute()
        part = part_path(path)
        _refuse_finished(path)
        if part.exists():
            raise ResultExistsError(f"An unfinished result already exists: {part}.")
        if not path.parent.is_dir():
            raise ResultNotFoundError(f"There is no directory {path.parent}.")
        require_space(path.parent, stored_bytes(description), f"{path} takes")
        # The layout is created under a scratch name, so that a .part is complete once it exists.
        with translated(part), scratch_file(path) as scratch:
            create(scratch, description)
            reserve_space(scratch)
            seal(scratch)
            publish(scratch, part)
        return cls._claimed(path, fsync, description.fingerprint, is_new=True)

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        fingerprint: str,
        *,
        reference: Reference | None = None,
        fsync: Fsync = "end",
    ) -> ResultWriter:
        """Open ``<path>.part`` where an earlier writer stopped.

        The committed blocks are read and compared with their checksums, because a machine that
        lost power may have kept a ledger entry and lost its data. Blocks that fail are missing
        again. All others are compared with what the function gives now, because the fingerprint
        cannot cover data that a function reads by itself.

        Args:
            path: Path of the finished result.
            fingerprint: The fingerprint of the job.
            reference: What the function gives now; None compares nothing.
            fsync: As in ``create``; it may differ from the earlier writer's.

        Raises:
            ResultNotFoundError: If there is no unfinished result.
            ResultExistsError: If the result is finished.
            FingerprintMismatchError: If the file belongs to another job.
            ChangedFunctionError: If the function gives something else now; the file is as before.
            BeingWrittenError: If another process writes the file.
            ResultError: If the file is not a result of this format, of a newer format version or
                damaged, or the disk has no room for the rest. The file is not modified then.
        """
        _require_fsync(fsync)
        path = Path(path).absolute()
        part = part_path(path)
        _refuse_finished(path)
        if not part.exists():
            raise ResultNotFoundError(f"There is no unfinished result {part}.")
        return cls._claimed(path, fsync, fingerprint, reference, is_new=False)

    @classmethod
    def discard(cls, path: str | os.PathLike[str]) -> None:
        """Remove ``<path>.part``, whatever it holds, if there is one.

        Raises:
            BeingWrittenError: If another process writes the file.
        """
        part = part_path(Path(path).absolute())
        if part.exists():
            with Claim(part):
                part.unlink()

    @classmethod
    def _claimed(
        cls,
        path: Path,
        fsync: Fsync,
        fingerprint: str,
        reference: Reference | None = None,
        *,
        is_new: bool,
    ) -> ResultWriter:
        part = part_path(path)
        claim = Claim(part)
        try:
            with parsed(part):
                # Check before opening for writing: HDF5 uses a single cache for a file that is
                # open twice in one process, and the writer's cache holds no tiles.
                with open_file(part, "r") as file:
                    require_ours(file, part)
                    # What was created just now is checked when it is finished.
                    if not is_new:
                        require_sound_creation(file)
                    _require_fingerprint(file, part, fingerprint)
                    found = Examined() if is_new else examined(file, part, reference)
                return cls(path, claim, fsync, found)
        except BaseException:
            claim.release()
            raise

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self.close()
        except ResultError as failure:
            if error is None:
                raise
            error.add_note(str(failure))

    def missing(self) -> list[range]:
        """Return the ranges of the block axis that are not committed, in order.

        Nothing is missing from a matrix without entries.
        """
        if 0 in self._space.shape:
            return []
        origin = self._origin
        return [range(gap.start + origin, gap.stop + origin) for gap in self._ledger.missing()]

    def write(self, start: int, stop: int, values: np.ndarray) -> None:
        """Write and commit one block: its data, then its entry in the ledger.

        Args:
            start: First line of the block on the axis along which blocks arrive.
            stop: One past the last line.
            values: The entries, of shape (stop - start, columns) for row blocks and
                (rows, stop - start) for column blocks, of the stored dtype.

        Raises:
            BeingWrittenError: If another process has taken the file over.
            ResultError: If the block does not fit, is committed already, or cannot be written; or
                if another program has removed, replaced or cut the file.
        """
        region = self._region(start, stop)
        if values.shape != (expected := tuple(part.stop - part.start for part in region)):
            raise ResultError(f"{self.axis} {start}:{stop} take {expected}, not {values.shape}.")
        if values.dtype != self._space.dtype:
            raise ResultError(f"The matrix is {self._space.dtype}, the block {values.dtype}.")
        values = in_c_order(values)
        checksum = block_checksum(values)
        self._claim.require()
        with translated(self.part):
            if values.size:
                self._space.write(region, values)
            self._sync_block()
            seconds = time.monotonic() - self._opened
            self._ledger.commit(
                self._claim.descriptor,
                start - self._origin,
                stop - self._origin,
                checksum,
                seconds,
            )
            self._sync_block()

    def finish(
        self,
        execution: Mapping[str, Any],
        *,
        strategy: str | None = None,
        replaced: Path | None = None,
    ) -> Path:
        """Complete the result, check the file on the disk and rename it to its final name.

        Args:
            execution: The execution record, serializable as JSON: chunk sizes, fallbacks, peak
                memory, verification.
            strategy: The strategies that computed the blocks; None for that of the description.
            replaced: The finished result whose place the file takes in one step; None for none.

        Returns:
            The absolute path of the finished file.

        Raises:
            UnfinishedResultError: If blocks are missing, here or in the file.
            ResultExistsError: If a finished result has appeared meanwhile.
            ResultError: If the record does not fit, the disk fails, or the file is damaged or is
                no longer the one that was written.
        """
        self._require_open()
        self._claim.require()
        self._require_complete(self.missing())
        with translated(self.part):
            write_execution(self._file, execution)
            if strategy is not None and strategy != read_attribute(self._file, "strategy"):
                write_strategy(self._file, strategy)
            write_finish_digest(self._file)
            compressed = read_attribute(self._file, "compression") != "none"
            self._file.close()
            seal(self.part)
            self._require_complete(missing_on_disk(self._claim))
            # Shards stay uncompressed: the whole matrix is compressed once, when they are merged.
            is_packed = compressed and self._shard is None
            target = replaced or self.path
            with packed(self.part) if is_packed else nullcontext(self.part) as source:
                give_name(self._claim, source, target, is_replacing=replaced is not None)
            self.part.unlink(missing_ok=True)
        self.close()
        return target

    def close(self) -> None:
        """Close the file; an unfinished one can be resumed."""
        try:
            with translated(self.part):
                self._file.close()
        finally:
            self._claim.release()

    def is_in_place(self) -> bool:
        """Return whether the path still names the file that is written."""
        return self._claim.owns(self.part)

    def _require_complete(self, missing: list[range]) -> None:
        if missing:
            raise UnfinishedResultError(
                f"{self.part} is not complete: {self.axis} {missing[0].start}:{missing[0].stop} "
                "are the first missing ones; the same command computes them."
            )

    def _sync_block(self) -> None:
        if self._fsync == "block":
            os.fsync(self._claim.descriptor)

    def _region(self, start: int, stop: int) -> Region:
        self._require_open()
        first, last = self._origin, self._origin + self._lines
        if not first <= start < stop <= last:
            raise ResultError(f"{self.axis} {start}:{stop} are not within {first}:{last}.")
        lines = slice(start - first, stop - first)
        if self._ledger.overlaps(lines.start, lines.stop):
            raise ResultError(f"Some of the {self.axis} {start}:{stop} are committed already.")
        return self.axis.bounded_region(self._space.shape, lines.start, lines.stop)

    def _require_open(self) -> None:
        if not self._file:
            raise ResultError(f"The writer of {self.path} is closed.")


def _require_fsync(fsync: str) -> None:
    if fsync not in ("end", "block"):
        raise ResultError(f"The fsync policy is one of end, block, not {fsync!r}.")


def _require_fingerprint(file: h5py.File, part: Path, fingerprint: str) -> None:
    found = read_attribute(file, "fingerprint")
    if found != fingerprint:
        raise FingerprintMismatchError(
            f"{part} belongs to another job: its fingerprint is {found}, not {fingerprint}."
        )


def _refuse_finished(path: Path) -> None:
    if path.exists():
        raise ResultExistsError(f"A finished result already exists: {path}.")
