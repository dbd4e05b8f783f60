"""Let Ctrl-C end the command at once, without a traceback, while its modules are imported.

Importing this module does so, in a process that runs the command; `raise_again` ends it.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

_COMMANDS = ("run.py", "autodiff-jobs", "autodiff_jobs.py")


def _end_at_once() -> None:
    # Where the signal is ignored, as shells have it in the background, it stays ignored.
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default and Path(sys.argv[0]).name in _COMMANDS:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def raise_again() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` again."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_end_at_once()
