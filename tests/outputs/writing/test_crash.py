import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from outputs import ResultError, ResultWriter, UnfinishedResultError, open_result, part_path

ROOT = Path(__file__).parents[3]

WRITE_SLOWLY = """
import sys
import numpy as np
from outputs import ResultDescription, ResultWriter, TensorSpec

path, axis, compression = sys.argv[1:]
description = ResultDescription(
    "jacobian", "reverse-loop", "m:f", "abc", axis,
    (TensorSpec("y", (300,), "float64"),), (TensorSpec("x", (400,), "float64"),), "float64",
    False, False, {}, {}, {}, "", {}, (64, 32) if axis == "columns" else None, compression,
)
matrix = np.random.default_rng(0).standard_normal((300, 400))
with ResultWriter.create(path, description) as writer:
    print("sealed", flush=True)
    for line in range(300 if axis == "rows" else 400):
        lines = slice(line, line + 1)
        writer.write(line, line + 1, matrix[lines] if axis == "rows" else matrix[:, lines])
    while True:
        writer.finish({"seconds": 1})
"""

WRITE_MUCH = """
import resource
import sys
import numpy as np
from outputs import BackgroundWriter, ResultDescription, ResultWriter, TensorSpec

path, axis = sys.argv[1:]
shape = (4096, 8192)
description = ResultDescription(
    "hessian", "reverse-loop", "m:f", "abc", axis,
    (TensorSpec("y", shape[:1], "float64"),), (TensorSpec("x", shape[1:], "float64"),), "float64",
    False, False, {}, {}, {}, "", {},
)
count = 256 if axis == "rows" else 512
lines = shape[0] if axis == "rows" else shape[1]
block = lambda: np.ones((count, shape[1]) if axis == "rows" else (shape[0], count))
with ResultWriter.create(path, description) as writer:
    writer.write(0, count, block())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with BackgroundWriter(writer) as background:
        for start in range(count, lines, count):
            background.submit(start, start + count, block())
    writer.finish({})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def start(program: str, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("wait", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_a_killed_writer_loses_no_committed_block(tmp_path, axis, compression, wait):
    path = tmp_path / "r.h5"
    matrix = np.random.default_rng(0).standard_normal((300, 400))
    with start(WRITE_SLOWLY, path, axis, compression) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sealed\n"
        time.sleep(wait + random.random() * 0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode in (-signal.SIGKILL, 1)  # 1: finished before the signal
    if not path.exists():
        with pytest.raises(UnfinishedResultError, match="are committed"):
            open_result(path)
        with ResultWriter.resume(path, "abc") as writer:
            for lines in writer.missing():
                part = slice(lines.start, lines.stop)
                block = matrix[part] if axis == "rows" else matrix[:, part]
                writer.write(part.start, part.stop, block)
            writer.finish({})
    assert not part_path(path).exists()
    with open_result(path) as result:
        assert np.array_equal(result[:, :], matrix)


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_memory_holds_a_few_blocks_of_256_mib(tmp_path, axis):
    with start(WRITE_MUCH, tmp_path / "r.h5", axis) as process:
        grown_kib = int(process.communicate()[0])
    assert (tmp_path / "r.h5").stat().st_size >= 256 * 2**20
    (tmp_path / "r.h5").unlink()
    # Two blocks in the queue, one being written, one being made, and tiles in transit.
    assert grown_kib < 6 * 16 * 1024


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_cut_files_are_refused_in_one_sentence(describe, entries, write_all, tmp_path, compression):
    path = tmp_path / "r.h5"
    with ResultWriter.create(path, describe(compression=compression)) as writer:
        write_all(writer, "rows", entries((12, 20), "float64"), [5])
        writer.finish({})
    whole = path.read_bytes()
    for size in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ResultError, match=str(path)):
            open_result(path)


def test_damaged_compressed_data_are_refused_when_read(describe, tmp_path):
    path = tmp_path / "r.h5"
    with ResultWriter.create(path, describe(compression="gzip")) as writer:
        writer.write(0, 12, np.random.default_rng(0).standard_normal((12, 20)))
        writer.finish({})
    with open_result(path) as result:
        info = result.stored_matrix.id.get_chunk_info_by_coord((0, 0))
    data = bytearray(path.read_bytes())
    data[info.byte_offset : info.byte_offset + info.size] = b"\xff" * info.size
    path.write_bytes(data)
    with open_result(path) as result, pytest.raises(ResultError, match="damaged"):
        result[:, :]
