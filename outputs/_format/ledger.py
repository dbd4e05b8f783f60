"""The record of committed blocks, kept inside the result file."""

from __future__ import annotations

import bisect

import h5py
import numpy as np

from outputs._format.names import LEDGER_DTYPE
from outputs._storage.raw_bytes import read_bytes, write_bytes

EMPTY, COMMITTED, REJECTED = 0, 1, 2

_PIECE_ENTRIES = 65536


class Ledger:
    """An append table of blocks over one axis, with the ranges they cover.

    It is read by HDF5 and written beside it, which takes a tenth of the time. The dataset is let go
    at once: HDF5 would go on showing what it has read to others in this process.

    Args:
        table: The dataset, one entry of ``LEDGER_DTYPE`` for each line of the axis.
        lines: Length of the axis.
    """

    def __init__(self, table: h5py.Dataset, lines: int) -> None:
        self._offset = table.id.get_offset() or 0
        self._capacity = table.shape[0]
        self._lines = lines
        self._load(_used_entries(table))

    def _load(self, entries: np.ndarray) -> None:
        self._entries = entries
        self._free = np.flatnonzero(self._entries["state"] == REJECTED).tolist()
        self._used = len(self._entries)
        self._covered: list[tuple[int, int]] = []
        # Committed entries that cannot be, as a loss of power may leave them: they count as absent.
        self.impossible = _impossible_slots(entries, self._lines)
        self._sound = np.delete(entries, self.impossible)
        for entry in np.sort(self.committed, order="start"):
            self._cover(int(entry["start"]), int(entry["stop"]))

    @property
    def committed(self) -> np.ndarray:
        """The entries that were committed when the ledger was opened, in order of writing."""
        return self._sound[self._sound["state"] == COMMITTED]

    @property
    def lines_committed(self) -> int:
        """Number of lines that committed blocks cover."""
        return sum(stop - start for start, stop in self._covered)

    def missing(self) -> list[range]:
        """The ranges that no committed block covers, in order."""
        edges = [0, *(edge for pair in self._covered for edge in pair), self._lines]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        return [range(start, stop) for start, stop in gaps if start < stop]

    def overlaps(self, start: int, stop: int) -> bool:
        """Whether a committed block holds a line of the range."""
        place = bisect.bisect_right(self._covered, start, key=lambda pair: pair[0])
        before = place > 0 and self._covered[place - 1][1] > start
        after = place < len(self._covered) and self._covered[place][0] < stop
        return before or after

    def commit(self, descriptor: int, start: int, stop: int, checksum: int, seconds: float) -> None:
        """Records a block whose data already stand in the file.

        The entry's fields come first and its state last: a kill in between leaves a slot that is
        still free.

        Args:
            descriptor: The file, opened for writing.
            start: First line of the block.
            stop: Line after its last.
            checksum: Of its bytes.
            seconds: Since the file was opened.
        """
        slot = self._free[-1] if self._free else self._used
        state = REJECTED if self._free else EMPTY
        for written in (state, COMMITTED):
            entry = np.array((start, stop, seconds, checksum, written), LEDGER_DTYPE)
            write_bytes(descriptor, self._place(slot), entry)
        if self._free:
            self._free.pop()
        else:
            self._used += 1
        self._cover(start, stop)

    def repair(self, descriptor: int, failing: set[tuple[int, int]]) -> None:
        """Gives up what cannot be trusted, before anything is written.

        Rejected are blocks whose data are not what was written, and entries that cannot be.
        Entries behind the end of the table, of which a loss of power kept the later ones only,
        are cleared: they would come back when the gap is filled.

        Args:
            descriptor: The file, opened for reading and writing.
            failing: The ranges of such blocks.
        """
        bad = set(self.impossible)
        for slot in np.flatnonzero(self._entries["state"] == COMMITTED).tolist():
            entry = self._entries[slot]
            if slot in bad or (int(entry["start"]), int(entry["stop"])) in failing:
                entry["state"] = REJECTED
                write_bytes(descriptor, self._place(slot), np.array(entry))
        for start in range(self._used, self._capacity, _PIECE_ENTRIES):
            piece = np.zeros(min(_PIECE_ENTRIES, self._capacity - start), LEDGER_DTYPE)
            read_bytes(descriptor, self._place(start), piece)
            if piece["state"].any():
                write_bytes(descriptor, self._place(start), np.zeros_like(piece))
        self._load(self._entries)

    def _place(self, slot: int) -> int:
        return self._offset + slot * LEDGER_DTYPE.itemsize

    def _cover(self, start: int, stop: int) -> None:
        place = bisect.bisect_left(self._covered, (start, stop))
        if place < len(self._covered) and self._covered[place][0] == stop:
            stop = self._covered.pop(place)[1]
        if place > 0 and self._covered[place - 1][1] == start:
            place -= 1
            start = self._covered.pop(place)[0]
        self._covered.insert(place, (start, stop))


def _used_entries(table: h5py.Dataset) -> np.ndarray:
    pieces = []
    for start in range(0, table.shape[0], _PIECE_ENTRIES):
        piece = table[start : start + _PIECE_ENTRIES]
        used = np.flatnonzero(piece["state"] == EMPTY)
        pieces.append(piece[: used[0]] if used.size else piece)
        if used.size:
            break
    return np.concatenate(pieces) if pieces else np.empty(0, LEDGER_DTYPE)


def _impossible_slots(entries: np.ndarray, lines: int) -> list[int]:
    """Committed entries that are not within the axis, or overlap one before them."""
    slots = np.flatnonzero(entries["state"] == COMMITTED)
    start, stop = entries["start"][slots], entries["stop"][slots]
    within = (start >= 0) & (start < stop) & (stop <= lines)
    bad = slots[~within].tolist()
    slots = slots[within]
    order = slots[np.argsort(entries["start"][slots], kind="stable")]
    kept_slot, kept_stop = -1, 0
    for slot, begin, end in zip(
        order.tolist(),
        entries["start"][order].tolist(),
        entries["stop"][order].tolist(),
        strict=True,
    ):
        if begin >= kept_stop:
            kept_slot, kept_stop = slot, end
        elif slot > kept_slot:
            bad.append(slot)
        else:
            bad.append(kept_slot)
            kept_slot, kept_stop = slot, end
    return bad
