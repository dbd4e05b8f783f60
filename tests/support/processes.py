"""Jobs in processes of their own, to be stopped and killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from outputs import open_result


def start_job(*options: str, **environment: str) -> subprocess.Popen[str]:
    """Start the real command in the current directory."""
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.run", *options],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets what it starts in the background ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def committed(directory: Path, parts: str = "runs/*/*.part") -> int:
    """How many rows or columns the unfinished result holds; 0 where there is none."""
    for part in directory.glob(parts):
        with open_result(part.with_suffix(""), allow_partial=True) as result:
            return int(result.mask.sum())
    return 0


def wait_for(condition: Callable[[], bool], job: subprocess.Popen[str] | None = None) -> None:
    """Wait until something holds, which it must while a job, if given, is alive."""
    limit = time.monotonic() + 100
    while not condition():
        assert job is None or job.poll() is None, job.communicate()
        assert time.monotonic() < limit
        time.sleep(0.02)
