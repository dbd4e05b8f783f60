"""The consoles on which commands print."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from outputs import printable

WIDTH_WITHOUT_TERMINAL = 1000


class SafeConsole(Console):
    """A console on which the text of a file can only be read, whatever it contains."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render, with control characters of the text made visible; those of rich remain."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def command_console() -> Console:
    """Return standard output as a console that does not fold lines where there is no terminal."""
    console = SafeConsole(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    return console
