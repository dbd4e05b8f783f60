"""The record of committed blocks, kept inside the result file."""

from __future__ import annotations

import bisect

import h5py
import numpy as np

from outputs._format.names import LEDGER_DTYPE
from outputs._storage.raw_bytes import read_bytes, write_bytes

_EMPTY, _COMMITTED, _REJECTED = 0, 1, 2

_PIECE_ENTRIES = 65536


class Ledger:
    """An append-only table of blocks over one axis, and the ranges they cover.

    HDF5 reads it; writes bypass HDF5, which takes a tenth of the time. The dataset is not kept
    open, because HDF5 would keep serving what it has cached to other readers in this process.

    Args:
        table: The dataset, one entry of ``LEDGER_DTYPE`` for each line of the axis.
        lines: Length of the axis.

    Attributes:
        impossible: Slots of committed entries that contradict the axis or an earlier entry, as a
            power loss may leave them; they count as absent.
    """

    def __init__(self, table: h5py.Dataset, lines: int) -> None:
        self._offset = table.id.get_offset() or 0
        self._capacity = table.shape[0]
        self._lines = lines
        self._load(used_entries(table))

    def _load(self, entries: np.ndarray) -> None:
        self._entries = entries
        self._free = np.flatnonzero(self._entries["state"] == _REJECTED).tolist()
        self._used = len(self._entries)
        self._covered: list[tuple[int, int]] = []
        self.impossible = _impossible_slots(entries, self._lines)
        self._valid = np.delete(entries, self.impossible)
        for entry in np.sort(self.committed, order="start"):
            self._cover(int(entry["start"]), int(entry["stop"]))

    @property
    def committed(self) -> np.ndarray:
        """The entries that were committed when the ledger was opened, in order of writing."""
        return self._valid[self._valid["state"] == _COMMITTED]

    @property
    def lines_committed(self) -> int:
        """Number of lines that committed blocks cover."""
        return sum(stop - start for start, stop in self._covered)

    def missing(self) -> list[range]:
        """Return the ranges that no committed block covers, in order."""
        edges = [0, *(edge for pair in self._covered for edge in pair), self._lines]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        return [range(start, stop) for start, stop in gaps if start < stop]

    def overlaps(self, start: int, stop: int) -> bool:
        """Return whether a committed block covers a line of the range."""
        place = bisect.bisect_right(self._covered, start, key=lambda pair: pair[0])
        before = place > 0 and self._covered[place - 1][1] > start
        after = place < len(self._covered) and self._covered[place][0] < stop
        return before or after

    def commit(self, descriptor: int, start: int, stop: int, checksum: int, seconds: float) -> None:
        """Record a block whose data are already in the file.

        The entry's fields are written first and its state last, so that a kill in between leaves
        the slot free.

        Args:
            descriptor: The file, opened for writing.
            start: First line of the block.
            stop: One past the last line.
            checksum: CRC-32 of the block's bytes.
            seconds: Time since the file was opened.
        """
        slot = self._free[-1] if self._free else self._used
        state = _REJECTED if self._free else _EMPTY
        for written in (state, _COMMITTED):
            entry = np.array((start, stop, seconds, checksum, written), LEDGER_DTYPE)
            write_bytes(descriptor, self._place(slot), entry)
        if self._free:
            self._free.pop()
        else:
            self._used += 1
        self._cover(start, stop)

    def repair(self, descriptor: int, failing: set[tuple[int, int]]) -> None:
        """Discard entries that cannot be trusted, before anything is written.

        Blocks whose data differ from what was written, and impossible entries, are marked as
        rejected. Entries after the end of the table, which remain if a power loss kept only later
        ones, are cleared: they would become valid again when the gap is filled.

        Args:
            descriptor: The file, opened for reading and writing.
            failing: The ranges of blocks whose data fail their checksum.
        """
        bad = set(self.impossible)
        for slot in np.flatnonzero(self._entries["state"] == _COMMITTED).tolist():
            entry = self._entries[slot]
            if slot in bad or (int(entry["start"]), int(entry["stop"])) in failing:
                entry["state"] = _REJECTED
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


def used_entries(table: h5py.Dataset) -> np.ndarray:
    """Read the entries of a ledger up to the first empty one."""
    pieces = []
    for start in range(0, table.shape[0], _PIECE_ENTRIES):
        piece = table[start : start + _PIECE_ENTRIES]
        empty = np.flatnonzero(piece["state"] == _EMPTY)
        pieces.append(piece[: empty[0]] if empty.size else piece)
        if empty.size:
            break
    return np.concatenate(pieces) if pieces else np.empty(0, LEDGER_DTYPE)


def _impossible_slots(entries: np.ndarray, lines: int) -> list[int]:
    """Return the slots of committed entries outside the axis, or overlapping an earlier entry."""
    slots = np.flatnonzero(entries["state"] == _COMMITTED)
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
