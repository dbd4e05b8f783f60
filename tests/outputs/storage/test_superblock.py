"""A file that is cut short is known by its superblock, whatever it holds, and nothing grows it."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from outputs import ResultError, ResultWriter, TruncatedResultError, open_result, part_path
from outputs._storage.superblock import require_end
from tests.outputs.conftest import description


@pytest.mark.parametrize("user_block", [0, 512, 4096])
@pytest.mark.parametrize("libver", ["earliest", "v108", "v110", "latest"])
def test_a_file_of_each_version_that_is_cut_anywhere_is_truncated(
    libver: Any, user_block: int, tmp_path: Path
) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w", libver=(libver, "latest"), userblock_size=user_block) as file:
        for number in range(20):
            file[f"group/{number}"] = np.arange(100.0)
    require_end(path)
    content = path.read_bytes()
    for size in (len(content) - 1, len(content) // 2, user_block + 100, user_block + 8):
        path.write_bytes(content[:size])
        with pytest.raises(TruncatedResultError, match=f"{path} is truncated: its end is missing"):
            require_end(path)
    path.write_bytes(content + b"more")
    require_end(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        bytes(5000),
        # An unknown version of the superblock, and addresses of an unknown width.
        b"\x89HDF\r\n\x1a\n" + bytes([9]) + bytes(100),
        b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 3]) + bytes(100),
    ],
)
def test_of_other_files_nothing_is_said(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    require_end(path)
    with pytest.raises(ResultError) as caught:
        open_result(path)
    assert not isinstance(caught.value, TruncatedResultError)


@pytest.mark.parametrize("leave", [ResultWriter.close, lambda writer: writer.finish({})])
def test_closing_does_not_grow_a_file_that_was_cut(
    leave: Callable[[ResultWriter], Any], tmp_path: Path
) -> None:
    path = tmp_path / "r.h5"
    writer = ResultWriter.create(path, description())
    writer.write(0, 12, np.ones((12, 20)))
    part = part_path(path)
    size = part.stat().st_size // 2
    os.truncate(part, size)
    with pytest.raises(ResultError, match="was cut short by another program"):
        leave(writer)
    with contextlib.suppress(ResultError):
        writer.close()
    assert part.stat().st_size == size
    assert not path.exists()
    with pytest.raises(TruncatedResultError):
        open_result(path, allow_partial=True)
