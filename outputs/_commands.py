"""The parts that the commands share: parsers, consoles, progress bars, errors and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from outputs._errors import ResultError
from outputs._scanning.sequential import Advance
from outputs._text import printable

_INTERRUPTED = 130


def command_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of ``python -m outputs.<name>``."""
    return argparse.ArgumentParser(prog=f"python -m outputs.{name}", description=description)


def run_command(
    command: Callable[[], int], *, subject: str = "The file", interrupted: str | None = None
) -> int:
    """Run a command and print its errors as one sentence on stderr.

    Args:
        command: Does the work and returns the exit code.
        subject: The beginning of the sentence for an ``OSError`` that names no file.
        interrupted: The line printed on stderr after an interruption; None for no line.

    Returns:
        The exit code: that of the command, 1 after an error, 130 after an interruption.
    """
    try:
        with _interruptible():
            return command()
    except (ResultError, OSError) as error:
        print_line(_sentence(error, subject), error=True)
        return 1
    except KeyboardInterrupt:
        if interrupted is not None:
            print_line(interrupted, error=True)
        return _INTERRUPTED


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    before = sys.unraisablehook
    main = threading.main_thread().ident

    def interrupt_again(unraisable: sys.UnraisableHookArgs) -> None:
        # Python ignores what Ctrl-C raises in a callback of a weak reference. It is sent once more,
        # from another thread, so that its handler runs after the callback.
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            threading.Timer(0.01, signal.pthread_kill, [main, signal.SIGINT]).start()
        else:
            before(unraisable)

    sys.unraisablehook = interrupt_again
    try:
        yield
    finally:
        sys.unraisablehook = before


def _sentence(error: Exception, subject: str) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or subject}: {error.strerror}."
    return str(error)


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


def print_line(text: object, *, error: bool = False) -> None:
    """Print a text, on stderr if it is an error, with control characters made visible."""
    print(printable(str(text)), file=sys.stderr if error else sys.stdout)


def output_console(width_without_terminal: int) -> Console:
    """Return a console for stdout, of the given width in characters if that is no terminal."""
    return SafeConsole(width=None if sys.stdout.isatty() else width_without_terminal)


def pair_table(title: str) -> Table:
    """Return an empty table of names and values, without a header."""
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


@contextlib.contextmanager
def progress_bar(description: str, total: int | None) -> Iterator[Advance]:
    """Show a progress bar on stderr if that is a terminal.

    Args:
        description: The label of the bar.
        total: Bytes to process; None if unknown.

    Yields:
        The function to call with the number of bytes of each piece that has been processed.
    """
    console = SafeConsole(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)
