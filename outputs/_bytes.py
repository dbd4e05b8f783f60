"""Bytes at places of an open file, read and written beside HDF5."""

from __future__ import annotations

import os

import numpy as np

# More than two GiB are not read by one call.
_LONGEST_READ = 2**30


def write_bytes(descriptor: int, offset: int, values: np.ndarray) -> None:
    """Writes the bytes of an array in C order at a place of a file.

    Raises:
        OSError: If the disk is full, or fails.
    """
    data = values.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)


def read_bytes(descriptor: int, offset: int, values: np.ndarray) -> int:
    """Fills an array in C order with the bytes at a place of a file.

    Args:
        descriptor: The file.
        offset: The place.
        values: Is filled as far as the file reaches, and is left as it is behind its end.

    Returns:
        How many bytes were read.
    """
    data = values.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(data):
        count = os.preadv(descriptor, [data[done : done + _LONGEST_READ]], offset + done)
        if not count:
            break
        done += count
    return done
