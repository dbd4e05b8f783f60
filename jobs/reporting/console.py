"""The consoles on which commands print."""

from __future__ import annotations

from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 1000


def command_console() -> Console:
    """Return standard output as a console that does not fold lines where there is no terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    return console
