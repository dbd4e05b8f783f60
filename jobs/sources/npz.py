"""The arrays of an .npz archive: read one by one, when they are used, of the declared size."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jobs.errors import ConfigurationError, unknown
from jobs.machine.memory import available_host_memory
from jobs.units import size

_SUFFIX = ".npy"
# Version 3 is for the names of fields, and no array of numbers has fields.
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class NpzArray:
    """One array of an archive, which is read when it is first indexed.

    Args:
        path: The archive.
        member: The name of its file in the archive.
        option: The option that names the archive, for messages.

    Attributes:
        shape: The shape of the array.
        dtype: Its dtype.

    Raises:
        ValueError: It is damaged; zipfile, zlib and numpy raise errors of
            other types as well.
    """

    def __init__(self, path: str, member: str, option: str) -> None:
        self._path, self._member, self._option = path, member, option
        self._values: np.ndarray | None = None
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            version = np.lib.format.read_magic(file)  # pyright: ignore[reportArgumentType]
            read = _HEADERS[version]
            self.shape, _, self.dtype = read(file)  # pyright: ignore[reportArgumentType]
            declared = file.tell() + self.nbytes
            # Python objects are refused where they are needed; the function may not take them.
            if not self.dtype.hasobject and archive.getinfo(member).file_size != declared:
                raise ValueError(f"{member} is damaged")

    @property
    def nbytes(self) -> int:
        """The bytes of the array in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, key: Any) -> Any:
        if self._values is None:
            require_memory(self._option, self.nbytes)
            try:
                with zipfile.ZipFile(self._path) as archive, archive.open(self._member) as file:
                    self._values = np.lib.format.read_array(file, allow_pickle=False)
            except Exception as error:
                raise ConfigurationError(
                    f"{self._option}: {self._member} cannot be read ({error})"
                ) from error
        return self._values[key]


def npz_arrays(option: str, path: str, wanted: Iterable[str] | None) -> dict[str, NpzArray]:
    """Open the arrays of an archive without reading them.

    Args:
        option: The option that names the archive, for messages.
        path: The archive.
        wanted: The names of the arrays; None opens all.

    Raises:
        ConfigurationError: There is no array of that name.
    """
    with zipfile.ZipFile(path) as archive:
        arrays = [name for name in archive.namelist() if name.endswith(_SUFFIX)]
    members = {name.removesuffix(_SUFFIX): name for name in arrays}
    names = list(members if wanted is None else wanted)
    for name in names:
        if name not in members:
            raise unknown(f"{option}.arrays", name, members)
    place = f"{option}.path={path}"
    return {name: NpzArray(path, members[name], place) for name in names}


def require_archive_fits(option: str, path: Path, names: Iterable[str]) -> None:
    """Check that some arrays of an archive fit in memory, by the sizes that it declares.

    A file that is no archive passes: its reader says what is wrong with it.

    Raises:
        ConfigurationError: They do not.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
    except (OSError, zipfile.BadZipFile):
        return
    require_memory(option, sum(sizes.get(f"{name}{_SUFFIX}", 0) for name in names))


def require_memory(option: str, needed: int) -> None:
    """Check that what a file declares fits in memory, before any of it is read.

    Raises:
        ConfigurationError: It does not.
    """
    free, reason = available_host_memory()
    if needed > free:
        raise ConfigurationError(
            f"{option}: the file declares {size(needed)}, and {size(free)} of memory are "
            f"free{reason}"
        )
