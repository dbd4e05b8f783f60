"""Jobs in separate processes, for tests that stop and kill them."""

import gc
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from jobs.errors import JobError
from outputs import open_result
from tests.support.warm_interpreter import WarmPopen


def start_job(*options: str, **environment: str) -> subprocess.Popen[str]:
    """Start the real command in the current directory."""
    return WarmPopen(
        [sys.executable, "-m", "jobs.run", *options],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def forked(action: Callable[[], object]) -> int:
    """Run an action in a copy of this process, which has imported everything; return its number.

    The copy ends with 0, with 1 and the message in the file ``errors-<number>`` of the current
    directory after a `JobError`, or with 3.
    """
    process = os.fork()
    if not process:
        # Collections would copy the memory of all that was here before.
        gc.freeze()
        # Whatever happens, this process must not continue as a second one of the tests.
        try:
            action()
            os._exit(0)
        except JobError as error:
            Path(f"errors-{os.getpid()}").write_text(str(error))
            os._exit(1)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(3)
    return process


def ending(process: int) -> int:
    """Wait for a forked process; return its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def committed(directory: Path, parts: str = "runs/*/*.part") -> int:
    """Return the number of committed rows or columns of the unfinished result; 0 without one."""
    for part in directory.glob(parts):
        with open_result(part.with_suffix(""), allow_partial=True) as result:
            return int(result.mask.sum())
    return 0


def wait_for(condition: Callable[[], bool], job: subprocess.Popen[str] | None = None) -> None:
    """Wait until a condition holds; fail if the given job ends before."""
    limit = time.monotonic() + 100
    while not condition():
        assert job is None or job.poll() is None, job.communicate()
        assert time.monotonic() < limit
        time.sleep(0.02)
