"""Read and write bytes at offsets of an open file, bypassing HDF5."""

from __future__ import annotations

import ctypes
import os

import numpy as np

# One call reads at most two GiB.
_LONGEST_READ = 2**30
# Only Linux has this function, and Python does not expose it.
_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
_SYNC_FILE_RANGE_WRITE = 2


def write_bytes(descriptor: int, offset: int, values: np.ndarray) -> None:
    """Write the bytes of an array in C order at an offset of a file.

    Args:
        descriptor: The file, open for writing.
        offset: Offset in bytes.
        values: The array.

    Raises:
        OSError: If the disk is full, or fails.
    """
    data = values.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], offset + done)


def start_writeback(descriptor: int, offset: int, size: int) -> None:
    """Ask the kernel to write a range of a file to the disk now, without waiting for it.

    Otherwise the kernel may wait for half a minute, and a later ``fsync`` would wait for all of
    the data. That ``fsync`` reports errors as usual.

    Args:
        descriptor: The file, open for writing.
        offset: Start of the range in bytes.
        size: Length of the range in bytes.
    """
    if _sync_file_range is not None:
        extent = ctypes.c_int64(offset), ctypes.c_int64(size)
        _sync_file_range(descriptor, *extent, ctypes.c_uint(_SYNC_FILE_RANGE_WRITE))


def read_bytes(descriptor: int, offset: int, values: np.ndarray) -> int:
    """Fill an array in C order with the bytes at an offset of a file.

    Args:
        descriptor: The file, open for reading.
        offset: Offset in bytes.
        values: The array; its part beyond the end of the file is left as it is.

    Returns:
        Number of bytes read.
    """
    data = values.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(data):
        count = os.preadv(descriptor, [data[done : done + _LONGEST_READ]], offset + done)
        if not count:
            break
        done += count
    return done
