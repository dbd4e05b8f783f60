"""The exceptions of this package: one family, each with a sentence a user can act on."""


class ResultError(Exception):
    """Something about a result file that the caller or the user has to know."""


class ResultExistsError(ResultError):
    """A finished or unfinished result already stands where one was to be created."""


class ResultNotFoundError(ResultError):
    """There is no result at the path, finished or unfinished."""


class UnfinishedResultError(ResultError):
    """Only an unfinished ``.part`` exists, or blocks are missing where none may be."""


class FingerprintMismatchError(ResultError):
    """The file belongs to another job."""


class BeingWrittenError(ResultError):
    """Another process writes the file."""


class MissingDependencyError(ResultError, ImportError):
    """A library that this way of reading needs is not installed."""
