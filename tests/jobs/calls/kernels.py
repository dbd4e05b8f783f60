"""A real kernel of Jupyter, and what its cells show."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SECONDS_AT_MOST = 120


@dataclass
class Cell:
    """What a cell has shown.

    Attributes:
        text: What it has printed, and the text of what it has displayed.
        html: The pages of what it has displayed and of its value.
        value: The text of its value.
        error: The lines that stand for its error; empty if there is none.
        outputs: How many outputs stay below it.
        updates: How often one of them was replaced.
    """

    text: str = ""
    html: str = ""
    value: str = ""
    error: list[str] = field(default_factory=list)
    outputs: int = 0
    updates: int = 0

    def take(self, kind: str, content: dict[str, Any]) -> None:
        """Take a message of the kernel."""
        data = content.get("data", {})
        self.outputs += kind in ("display_data", "execute_result", "stream", "error")
        self.updates += kind == "update_display_data"
        self.text += content.get("text", "") + (data.get("text/plain", "") + "\n" if data else "")
        self.html += data.get("text/html", "")
        if kind == "execute_result":
            self.value = data["text/plain"]
        if kind == "error":
            self.error = content["traceback"]


class Kernel:
    """A running kernel."""

    def __init__(self, manager: Any, client: Any) -> None:
        self._manager, self._client = manager, client

    def run(self, code: str, interrupt_after: Callable[[Cell], bool] | None = None) -> Cell:
        """Run a cell to its end.

        Args:
            code: The cell.
            interrupt_after: Tells when the stop button is pressed, which happens once.
        """
        self._client.execute(code)
        cell = Cell()
        while True:
            message = self._client.get_iopub_msg(timeout=_SECONDS_AT_MOST)
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return cell
            if kind not in ("status", "execute_input"):
                cell.take(kind, content)
            if interrupt_after is not None and interrupt_after(cell):
                interrupt_after = None
                self._manager.interrupt_kernel()


@contextlib.contextmanager
def running_kernel(directory: Path) -> Iterator[Kernel]:
    """Run a kernel in a directory during the body."""
    # The libraries of Jupyter warn of what pytest would make an error.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from jupyter_client.manager import KernelManager

        manager: Any = KernelManager(kernel_name="python3", log=logging.getLogger("kernels"))
        manager.start_kernel(cwd=str(directory))
        client = manager.blocking_client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=_SECONDS_AT_MOST)
            yield Kernel(manager, client)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
