"""The exceptions of this package: one family, each with a message that a user can act on."""

from __future__ import annotations

from outputs._text import printable


class ResultError(Exception):
    """A result file is invalid, damaged or inaccessible, or cannot be used in this way.

    Args:
        message: One sentence or more; control characters, which files may hold, become visible.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class ResultExistsError(ResultError):
    """A file, finished or unfinished, already exists where one was to be created."""


class ResultNotFoundError(ResultError):
    """There is no result at the path, finished or unfinished."""


class UnfinishedResultError(ResultError):
    """Only an unfinished ``.part`` exists, or blocks of a matrix that must be whole are missing."""


class TruncatedResultError(ResultError):
    """The end of the file is missing, and with it its ledger and checksums."""


class FingerprintMismatchError(ResultError):
    """The file belongs to another job."""


class ChangedFunctionError(ResultError):
    """What was written before does not agree with what the function gives now.

    The text says what differs.

    Attributes:
        lines: The number of rows or columns that were written before.
    """

    lines = 0


class BeingWrittenError(ResultError):
    """Another process writes the file."""


class MissingDependencyError(ResultError, ImportError):
    """A library that the operation needs is not installed."""
