"""Run a job from a script, by the same command as in a shell."""

import subprocess
import sys
from pathlib import Path


def run_job(*overrides: str) -> Path:
    """Run a job in the current directory, and return the path of its result.

    Args:
        *overrides: Options, as on the command line.

    Raises:
        SystemExit: The job failed; its message is on standard error.
    """
    command = [sys.executable, "-m", "jobs.run", "progress=quiet", *overrides]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return Path(done.stdout.splitlines()[-1])
