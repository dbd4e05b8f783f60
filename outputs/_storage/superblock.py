"""Read from the superblock of an HDF5 file how long the file must be."""

from __future__ import annotations

from pathlib import Path

from outputs._errors import TruncatedResultError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# By version: where the width of addresses is stored, and where the addresses begin, of which the
# third is that of the end of the file ("HDF5 File Format Specification", II.A).
_LAYOUTS = {0: (13, 24), 1: (13, 28), 2: (9, 12), 3: (9, 12)}
_WIDTHS = (2, 4, 8)
# What the longest of them takes; no file is as short.
_BYTES = 28 + 3 * 8
# Where the shortest user block ends.
_USER_BLOCK = 512


def require_end(path: Path) -> None:
    """Check that an HDF5 file is as long as it says itself; of other files nothing is checked.

    Raises:
        TruncatedResultError: If its end is missing.
        OSError: If it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, 2)
        offset = 0
        while offset < size:
            file.seek(offset)
            found = file.read(_BYTES)
            if found.startswith(_SIGNATURE):
                end = _end(found) if len(found) == _BYTES else offset + _BYTES
                if size < end:
                    raise TruncatedResultError(
                        f"{path} is truncated: its end is missing, {end - size} of {end} bytes."
                    )
                return
            offset = 2 * offset or _USER_BLOCK


def _end(superblock: bytes) -> int:
    """Return the address of the end of the file; 0 if the superblock is damaged or unknown."""
    width_at, first = _LAYOUTS.get(superblock[8], (0, 0))
    width = superblock[width_at]
    start = first + 2 * width
    return int.from_bytes(superblock[start : start + width], "little") if width in _WIDTHS else 0
