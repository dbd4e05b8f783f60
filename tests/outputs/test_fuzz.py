"""Damaged files, and files that were written to do harm."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from outputs import Probes, ResultError, ResultWriter, TensorSpec, open_result, verify_result
from outputs.show import main as show
from outputs.verify import main as verify

ROOT = Path(__file__).parents[2]
LIBVER = ("earliest", "v108")

# Reads everything in every file named on stdin; the unfinished line names the file being read.
READ_ALL = """
import resource, signal, sys
from outputs import ResultError, open_result, verify_result
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
for path in sys.stdin.read().split():
    print(path, end=" ", flush=True)
    signal.alarm(2)
    try:
        with open_result(path, allow_partial=True) as result:
            result[:, :], result.points, result.value, result.vectors, result.mask, repr(result)
            result.configuration, result.provenance, result.execution, result.probes
        print("read", end=" ")
    except ResultError:
        print("refused", end=" ")
    print("sound" if verify_result(path).ok else "unsound", flush=True)
"""


@pytest.fixture
def whole(describe, entries, write_all, tmp_path):
    matrix = entries((12, 20), "float64")
    right, left = np.ones(20), np.ones(12)
    probes = Probes(right, matrix @ right, left, left @ matrix, 1e-10)
    path = tmp_path / "whole.h5"
    with ResultWriter.create(path, describe(probes=probes)) as writer:
        write_all(writer, "rows", matrix, [5])
        writer.finish({"seconds": 1})
    return path


def read_everything(path: Path) -> list[Any]:
    with open_result(path, allow_partial=True) as result:
        texts = [result.configuration, result.execution, result.provenance]
        return [result[:, :], result.points, result.value, result.vectors, result.probes, *texts]


def refused(path: Path, capsys: Any) -> str:
    """Return the sentence with which the reader, show and verify refuse a file."""
    before = path.read_bytes(), sorted(path.parent.iterdir())
    with pytest.raises(ResultError) as caught:
        read_everything(path)
    assert show([str(path)]) == 1 or "Result" in capsys.readouterr().out
    found = verify_result(path)
    assert not found.ok
    assert (path.read_bytes(), sorted(path.parent.iterdir())) == before
    return f"{caught.value} {found.problems}"


def replaced(file: h5py.File, name: str, *arguments: Any, **options: Any) -> None:
    del file[name]
    file.create_dataset(name, *arguments, **options)


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((12, 20), "float64")
    layout[:] = h5py.VirtualSource("secret.h5", "data", (12, 20))
    del file["jacobian"]
    file.create_virtual_dataset("jacobian", layout)


def _external(file: h5py.File) -> None:
    replaced(file, "jacobian", (12, 20), "float64", external=[("/etc/passwd", 0, 1920)])


def _link(link: Any, name: str = "jacobian") -> Any:
    def change(file: h5py.File) -> None:
        file.move(name.split("/")[0], "elsewhere")
        file[name.split("/")[0]] = link

    return change


def _entry(table: str, field: str, value: Any) -> Any:
    def change(file: Any) -> None:
        entries = file[table][()]
        if isinstance(value, bytes):
            fields = [
                (n, f"S{len(value)}" if n == field else entries.dtype[n])
                for n in entries.dtype.names
            ]
            entries = entries.astype(fields)
        entries[field] = value
        replaced(file, table, data=entries)

    return change


def _text(name: str, text: bytes) -> Any:
    return lambda file: replaced(file, name, data=np.array(text))


def _attribute(name: str, value: Any) -> Any:
    value = np.bytes_(value) if isinstance(value, str) else value
    return lambda file: file.attrs.__setitem__(name, value)


HOSTILE = {
    "virtual": _virtual,
    "external": _external,
    "soft link": _link(h5py.SoftLink("/elsewhere")),
    "external link": _link(h5py.ExternalLink("/etc/passwd", "/")),
    "external group": _link(h5py.ExternalLink("other.h5", "/"), "point"),
    "soft ledger": _link(h5py.SoftLink("/elsewhere"), "ledger"),
    "loop": lambda f: f["point"].__setitem__("loop", f["/"]),
    "point elsewhere": lambda f: f["point"].__setitem__("y", h5py.ExternalLink("o.h5", "/x")),
    "absurd rows": lambda f: replaced(f, "jacobian", (2**60, 20), "float64", chunks=(1, 20)),
    "absurd contiguous": lambda f: replaced(f, "jacobian", (2**40, 20), "float64"),
    "absurd point": lambda f: replaced(f, "point/x", (2**55,), "float64", chunks=(8,)),
    "absurd packed": lambda f: replaced(
        f, "jacobian", (2**40, 20), "float64", chunks=(1, 20), compression="gzip"
    ),
    "absurd tile": lambda f: replaced(
        f, "jacobian", (2**28, 4), "float64", chunks=(2**27, 2), compression="gzip"
    ),
    "absurd ledger": lambda f: replaced(f, "ledger", (2**50,), f["ledger"].dtype, chunks=(8,)),
    "wrong matrix type": lambda f: replaced(f, "jacobian", data=np.full((12, 20), b"x")),
    "wrong dimensions": lambda f: replaced(f, "jacobian", data=np.ones(240)),
    "wrong shape": lambda f: replaced(f, "jacobian", data=np.ones((12, 21))),
    "variable strings": lambda f: replaced(f, "point/x", data=["a", "b"]),
    "references": lambda f: replaced(f, "point/x", data=f.ref, dtype=h5py.ref_dtype),
    "wrong ledger": lambda f: replaced(f, "ledger", data=np.ones(12)),
    "wrong table": lambda f: replaced(f, "rows", data=np.ones(2)),
    "wrong probe": lambda f: replaced(f, "probes/right", data=np.ones(7)),
    "probe of text": lambda f: replaced(f, "probes/right", data=np.full(20, b"x")),
    "operation": _attribute("operation", "../etc"),
    "operation is a table": _attribute("operation", "rows"),
    "text of variable length": lambda f: f.attrs.__setitem__("axis", "rows"),
    "axis": _attribute("axis", "diagonal"),
    "version": _attribute("format_version", "one"),
    "version 0": _attribute("format_version", 0),
    "many formats": _attribute("format", ["autodiff-jobs"] * 2),
    "format is a number": _attribute("format", 5),
    "shape is no JSON": _entry("rows", "shape", b"[" * 30),
    "shape is deep": _entry("rows", "shape", b"[" * 5000 + b"]" * 5000),
    "shape is negative": _entry("rows", "shape", b"[-3, -4]"),
    "shape is a number": _entry("rows", "shape", b"12"),
    "shape is huge": _entry("rows", "shape", b"[" + b"9" * 4000 + b"]"),
    "name is no text": _entry("rows", "name", b"\xff\xfe"),
    "range": _entry("columns", "stop", 2**62),
    "execution is no JSON": _text("execution", b"{"),
    "execution is a list": _text("execution", b"[]1"),
    "execution is deep": _text("execution", b"[" * 20000),
    "execution is a number": lambda f: replaced(f, "execution", data=3.0),
    "configuration is huge": lambda f: replaced(f, "configuration", (), f"S{2**31 - 1}"),
    "configuration is no text": _text("configuration", b"\xff\xfe\xfa"),
} | {f"without {name}": (lambda f, name=name: f.__delitem__(name)) for name in (
    "jacobian", "rows", "columns", "point", "value", "vectors", "provenance", "configuration",
    "execution", "ledger", "probes/right",
)} | {f"without attribute {name}": (lambda f, name=name: f.attrs.__delitem__(name)) for name in (
    "format", "format_version", "operation", "axis", "fingerprint", "rows_are_tuple",
)}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(whole, capsys, name):
    # Virtual datasets need a later version of HDF5's format than that of results.
    with h5py.File(whole, "r+", libver=None if name == "virtual" else LIBVER) as file:
        HOSTILE[name](file)
    sentence = refused(whole, capsys)
    assert str(whole) in sentence
    if any(word in name for word in ("link", "external", "virtual", "elsewhere")):
        assert "is refused" in sentence


def test_provenance_and_execution_of_any_content_are_shown(describe, tmp_path, capsys):
    path = tmp_path / "r.h5"
    with ResultWriter.create(path, describe()) as writer:
        writer.write(0, 12, np.ones((12, 20)))
        writer.finish({"verification": [1], "block_seconds": {"a": [{}] * 20}, "[bold]": None})
    assert show([str(path)]) == 0
    assert "[bold]" in capsys.readouterr().out


@pytest.mark.parametrize(("axis", "compression"), [("rows", "none"), ("columns", "gzip")])
def test_damaged_bytes_are_survived(describe, entries, tmp_path, axis, compression):
    """Hundreds of files with bytes flipped or cut, each read in a process that may die.

    HDF5 itself may crash on damaged metadata (docs/file-format.md); that is counted, and what
    remains is that Python raises nothing else than ResultError.
    """
    matrix = entries((12, 20), "float64")
    probes = Probes(np.ones(20), matrix.sum(1), None, None, 1e-10)
    description = describe(axis=axis, compression=compression, probes=probes)
    with ResultWriter.create(tmp_path / "r.h5", description) as writer:
        block = matrix[:12] if axis == "rows" else matrix[:, :20]
        writer.write(0, len(matrix) if axis == "rows" else 20, block)
        writer.finish({})
    original = (tmp_path / "r.h5").read_bytes()
    # The execution record's empty space is most of a small file.
    interesting = [i for i, byte in enumerate(original) if byte] + list(range(4096))
    chance = random.Random(int(os.environ.get("FUZZ_SEED", "0")))
    folder = tmp_path / "fuzz"
    folder.mkdir()
    count = int(os.environ.get("FUZZ_FILES", "150"))
    for number in range(count):
        data = bytearray(original)
        if number % 10 == 0:
            del data[chance.randrange(len(data)) :]
        for _ in range(chance.choice((1, 2, 16)) if data else 0):
            data[min(chance.choice(interesting), len(data) - 1)] = chance.randrange(256)
        (folder / f"{number}.h5").write_bytes(data)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    crashed, seen = survivors(sorted(before))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert seen + len(crashed) == count
    if crashed:
        print("HDF5 crashed:", crashed)
        assert verify(["--json", str(crashed[0][0])]) == 1
    assert len(crashed) <= count // 20


def survivors(paths: list[Path]) -> tuple[list[tuple[Path, int]], int]:
    """Return the files on which a reader died, with exit codes, and the number of other files."""
    crashed, seen = [], 0
    while paths:
        done = subprocess.run(
            [sys.executable, "-c", READ_ALL],
            input="\n".join(map(str, paths)),
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
        )
        lines = done.stdout.splitlines()
        if done.returncode == 0:
            return crashed, seen + len(paths)
        assert done.returncode < 0, f"{lines[-1]}: {done.stderr}"
        at = paths.index(Path(lines[-1].split()[0]))
        crashed.append((paths[at], done.returncode))
        seen += at
        paths = paths[at + 1 :]
    return crashed, seen


def test_a_crash_of_hdf5_is_a_problem_of_the_file(whole, monkeypatch, capsys):
    monkeypatch.setattr("outputs._verification.isolated._CHILD", "import os; os.abort()")
    assert verify(["--json", str(whole)]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert "HDF5 crashed on it (SIGABRT)" in found["problems"][0]


def test_a_partial_result_is_read_on_purpose(describe, tmp_path):
    path = tmp_path / "r.h5"
    with ResultWriter.create(path, describe()) as writer:
        writer.write(2, 5, np.full((3, 20), 7.0))
    for name in (path, writer.part):
        with open_result(name, allow_partial=True) as result:
            assert not result.complete
            assert result.mask.dtype == bool
            assert np.flatnonzero(result.mask).tolist() == [2, 3, 4]
            assert (result[2:5] == 7).all()


FORMAT_1 = Path(__file__).parent / "data" / "format-1.h5"


def test_format_1_remains_readable():
    assert FORMAT_1.stat().st_size < 100 * 1024
    found = verify_result(FORMAT_1)
    assert found.problems == ()
    assert (found.blocks, found.lines_checked) == (2, 5 + 7)
    with open_result(FORMAT_1) as result:
        assert result.operation == "jacobian"
        assert result.rows == (TensorSpec("y", (2, 2), "float64"), TensorSpec("s", (), "float64"))
        assert result.columns == (
            TensorSpec("w/0", (2, 3), "float64"),
            TensorSpec("b", (1,), "float32"),
        )
        assert result[:, :].tolist() == (np.arange(35.0).reshape(5, 7) / 4 - 3).tolist()
        assert result.block("s", "w/0").tolist() == [[4.0, 4.25, 4.5], [4.75, 5.0, 5.25]]
        assert result.block("y", "b").shape == (2, 2, 1)
        assert result.points["w/0"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
        assert result.points["b"].tolist() == [0.5]
        assert result.value["s"] == -1.5
        assert (result.rows_are_tuple, result.columns_are_tuple) == (True, True)
        assert result.provenance == {"torch": "2.13.0", "seed": 7, "deterministic": True}
        assert result.configuration == "operation: jacobian\n"
        assert result.execution == {"chunk_size": [3], "verification": {"kind": "probe"}}
        assert result.probes is not None
        assert result.probes.tolerance == 1e-10
        assert result.probes.right is not None
        assert result.probes.right.tolist() == [1, -1, 2, -2, 3, -3, 4]
