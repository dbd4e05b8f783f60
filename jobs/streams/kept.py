"""Blocks that planning has measured, which a stream keeps for the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from autodiff_core import Block
from jobs.streams.stream import Stream


class Keeping:
    """What a `Stream` has that keeps blocks, so that the run need not compute them again."""

    def __init__(self, kept: Iterable[Block] = ()) -> None:
        """Keep blocks that are computed already."""
        self._blocks = {range(each.start, each.stop): each for each in kept}

    @property
    def kept(self) -> list[range]:
        """The lines of each block that is kept, in order."""
        return sorted(self._blocks, key=lambda lines: lines.start)

    def keep(self, block: Block) -> None:
        """Keep a block; its fallbacks have been reported."""
        self._blocks[range(block.start, block.stop)] = replace(block, fallbacks=())

    def taken(self, start: int, stop: int) -> Block | None:
        """Return lines of a block that is kept, once."""
        held = next((each for each in self._blocks if holds(each, range(start, stop))), None)
        if held is None:
            return None
        block = self._blocks.pop(held)
        for rest in filter(len, (range(held.start, start), range(stop, held.stop))):
            self._blocks[rest] = _part(block, rest)
        return _part(block, range(start, stop))

    def forget(self) -> None:
        """Free the blocks that are kept."""
        self._blocks.clear()


def holds(lines: range, others: range) -> bool:
    """Return whether lines contain others."""
    return lines.start <= others.start and others.stop <= lines.stop


def _part(block: Block, lines: range) -> Block:
    start, stop = lines.start - block.start, lines.stop - block.start
    pieces = tuple(piece[start:stop] for piece in block.pieces)
    return replace(block, start=lines.start, stop=lines.stop, pieces=pieces)


def kept_lines(stream: Stream | None) -> list[range]:
    """Return the lines of each block that a stream keeps; none of a stream that keeps nothing."""
    return stream.kept if isinstance(stream, Keeping) else []


def keep(stream: Stream, block: Block) -> None:
    """Let a stream keep a block, if it can."""
    if isinstance(stream, Keeping):
        stream.keep(block)


def forget_kept(stream: Stream) -> None:
    """Free the blocks that a stream keeps."""
    if isinstance(stream, Keeping):
        stream.forget()


def forget_lines(stream: Stream, lines: range) -> None:
    """Free one of the blocks that a stream keeps, so that it is computed again."""
    if isinstance(stream, Keeping):
        stream.taken(lines.start, lines.stop)
