import importlib
import importlib.util
import sys
import zlib

import numpy as np
import pytest

from outputs._scanning.checksums import block_checksum
from outputs._storage.crc import combine


def test_checksums_of_pieces_combine():
    data = np.random.default_rng(0).integers(0, 256, 5000, np.uint8)
    for cut in (0, 1, 63, 4999, 5000):
        pair = block_checksum(data[:cut]), block_checksum(data[cut:])
        assert combine(*pair, len(data) - cut) == zlib.crc32(data.data)


@pytest.mark.parametrize("length", [0, 1, 63, 10_000, 2**20 + 1])
def test_checksums_are_those_of_zlib_with_and_without_isal(length, monkeypatch):
    data = np.random.default_rng(0).integers(0, 256, length, np.uint8).data
    with_isal = importlib.import_module("outputs._storage.crc").crc32
    assert with_isal.__module__ == "isal.isal_zlib"
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    specification = importlib.util.find_spec("outputs._storage.crc")
    assert specification is not None
    without = importlib.util.module_from_spec(specification)
    assert specification.loader is not None
    specification.loader.exec_module(without)
    assert without.crc32.__module__ == "zlib"
    assert with_isal(data, 7) == without.crc32(data, 7) == zlib.crc32(data, 7)
