"""Only one writer at a time: others learn the owner, and a claim ends with its process."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from outputs import BeingWrittenError, ResultWriter, part_path

FINGERPRINT = "0123456789abcdef"
HOLD = """
import sys, time
from outputs import ResultWriter
writer = ResultWriter.resume(sys.argv[1], "0123456789abcdef")
print("claimed", flush=True)
time.sleep(120)
"""


@pytest.fixture
def path(describe, tmp_path) -> Path:
    with ResultWriter.create(tmp_path / "r.h5", describe()) as writer:
        writer.write(0, 2, np.ones((2, 20)))
    return tmp_path / "r.h5"


@pytest.fixture
def record(path) -> Path:
    return part_path(path).with_name("r.h5.part.owner")


@pytest.fixture
def holder(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def without_locks(monkeypatch):
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


def sign(record: Path, host: str, pid: int) -> None:
    record.write_text(json.dumps({"host": host, "pid": pid, "token": "another"}))


def test_a_second_writer_learns_host_and_process(path, holder):
    before = part_path(path).read_bytes()
    owner = f"process {holder.pid} on {socket.gethostname()}"
    with pytest.raises(BeingWrittenError, match=f"is being written by {owner}"):
        ResultWriter.resume(path, FINGERPRINT)
    assert part_path(path).read_bytes() == before


def test_a_claim_dies_with_its_owner(path, holder, record):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert record.exists()
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        assert writer.missing() == [range(2, 12)]
        assert json.loads(record.read_text())["pid"] == os.getpid()


def test_closing_leaves_no_record(path, record):
    assert not record.exists()
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        assert record.exists()
        writer.write(2, 12, np.ones((10, 20)))
        writer.finish({})
        assert list(path.parent.iterdir()) == [path]


def test_an_unreadable_record_is_another_process(path, holder, record):
    record.write_bytes(b"\xff{")
    with pytest.raises(BeingWrittenError, match="is being written by another process"):
        ResultWriter.resume(path, FINGERPRINT)


@pytest.mark.parametrize("act", ["write", "finish"])
def test_a_writer_that_lost_the_file_stops_writing(path, record, act):
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        writer.write(2, 11, np.ones((9, 20)))
        sign(record, "elsewhere", 42)
        before = writer.part.read_bytes()
        with pytest.raises(BeingWrittenError, match="taken over by process 42 on elsewhere"):
            writer.write(11, 12, np.ones((1, 20))) if act == "write" else writer.finish({})
        assert writer.part.read_bytes() == before
    assert json.loads(record.read_text())["host"] == "elsewhere"


def test_a_removed_record_is_written_again(path, record):
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        record.unlink()
        writer.write(2, 12, np.ones((10, 20)))
        assert json.loads(record.read_text())["pid"] == os.getpid()


@pytest.mark.usefixtures("without_locks")
@pytest.mark.parametrize("host", [socket.gethostname(), "elsewhere"])
def test_without_locks_the_record_decides(path, record, host):
    sign(record, host, os.getpid())
    with pytest.raises(BeingWrittenError, match=rf"{os.getpid()} on {host}.* remove .*owner"):
        ResultWriter.resume(path, FINGERPRINT)
    record.unlink()
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        assert writer.missing() == [range(2, 12)]


@pytest.mark.usefixtures("without_locks")
def test_without_locks_a_dead_process_of_this_machine_is_recognized(path, record):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    sign(record, socket.gethostname(), ended.pid)
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        assert writer.missing() == [range(2, 12)]


@pytest.mark.usefixtures("without_locks")
@pytest.mark.parametrize("change", ["started", "boot"])
def test_without_locks_a_restarted_container_knows_its_own_name_and_number(path, record, change):
    with ResultWriter.resume(path, FINGERPRINT):
        owner = json.loads(record.read_text())
        assert owner["started"]
        assert owner["boot"]
    record.write_text(json.dumps(owner))
    with pytest.raises(BeingWrittenError, match=f"is being written by process {os.getpid()}"):
        ResultWriter.resume(path, FINGERPRINT)
    record.write_text(json.dumps(owner | {change: "1"}))
    with ResultWriter.resume(path, FINGERPRINT) as writer:
        assert writer.missing() == [range(2, 12)]
