"""Bytes at places of an open file, read and written beside HDF5."""

from __future__ import annotations

import ctypes
import os

import numpy as np

# More than two GiB are not read by one call.
_LONGEST_READ = 2**30
# Linux alone has it, and Python no name for it.
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
_SYNC_FILE_RANGE_WRITE = 2


def write_bytes(descriptor: int, offset: int, values: np.ndarray) -> None:
    """Writes the bytes of an array in C order at a place of a file.

    Raises:
        OSError: If the disk is full, or fails.
    """
    data = values.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)


def start_writeback(descriptor: int, offset: int, size: int) -> None:
    """Asks the system to bring a range of a file to the disk now, and does not wait for it.

    Left alone it may wait for half a minute, and who then makes sure of the file waits for all of
    it. What fails is told by the ``fsync`` that comes later, as ever.
    """
    if _sync_file_range is not None:
        places = ctypes.c_int64(offset), ctypes.c_int64(size)
        _sync_file_range(descriptor, *places, ctypes.c_uint(_SYNC_FILE_RANGE_WRITE))


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
