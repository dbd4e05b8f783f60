"""Check that a path names a file that can be read."""

from __future__ import annotations

import os
from pathlib import Path

from jobs.errors import ConfigurationError, did_you_mean


def require_file(option: str, path: str) -> None:
    """Check that there is a regular file: reading a pipe could wait for ever.

    Args:
        option: The option that names the file, for messages.
        path: The path.

    Raises:
        ConfigurationError: There is no file, it is a directory or device, or may not be read.
    """
    file = Path(path)
    if not os.path.lexists(file):
        beside = sorted(each.name for each in file.parent.glob(f"*{file.suffix}"))
        raise ConfigurationError(
            f"{option}={path}: there is no such file; looked for {file.absolute()}"
            + did_you_mean(file.name, beside)
        )
    if not os.path.exists(file):
        raise ConfigurationError(
            f"{option}={path}: this is a symbolic link to {os.readlink(file)}, which does not exist"
        )
    if file.is_dir():
        raise ConfigurationError(f"{option}={path}: this is a directory; valid is a file")
    if not file.is_file():
        raise ConfigurationError(
            f"{option}={path}: this is a pipe or a device; valid is a regular file"
        )
    if not os.access(file, os.R_OK):
        raise ConfigurationError(f"{option}={path}: there is no permission to read this file")
