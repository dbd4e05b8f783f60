"""Verify a file in a child process, so that a damaged file cannot crash this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from outputs._format.verification_state import Verdict, VerificationState
from outputs._verification.report import Verification
from outputs._verification.verify import verify

_OPENING_SECONDS = 120

_CHILD = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from outputs._verification.isolated import answer; answer(sys.argv[2])"
)


def verify_apart(path: str | os.PathLike[str]) -> Verification:
    """Verify a file in a child process; a crash there is reported as a problem of the file.

    Args:
        path: A result, finished or unfinished.
    """
    path, started = Path(path).absolute(), time.monotonic()
    search = json.dumps([str(Path(__file__).parents[2]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, search, str(path)], capture_output=True, text=True
    )
    if done.returncode == 0:
        facts = json.loads(done.stdout)
        for name in ("problems", "shape", "corrupt"):
            facts[name] = _tuples(facts[name])
        recorded = facts["recorded"]
        facts["recorded"] = Verdict(VerificationState(recorded["state"]), recorded["reason"])
        return Verification(**facts)
    fault = "is damaged"
    if done.returncode == -signal.SIGKILL:
        fault, reason = "is not verified", "the process that read it was killed (SIGKILL)"
    elif done.returncode == -signal.SIGALRM:
        reason = f"its structure could not be read within {_OPENING_SECONDS} s"
    elif done.returncode < 0:
        reason = f"HDF5 crashed on it ({signal.Signals(-done.returncode).name})"
    else:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    problem = f"{path} {fault}: {reason}."
    return Verification(str(path), (problem,), seconds=time.monotonic() - started)


def answer(path: str) -> None:
    """Print a verification as JSON; runs in the child process of `verify_apart`.

    An alarm ends the process if HDF5 does not return from reading the structure.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_OPENING_SECONDS)
    print(json.dumps(asdict(verify(Path(path), lambda: signal.alarm(0)))))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
