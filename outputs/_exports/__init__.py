"""One module a format, each with one function that streams a result into a new file.

A function takes the result, a path that does not exist, and ``advance``, which is told the bytes
of every piece that has been written. It leaves a closed file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from outputs._optional import load

if TYPE_CHECKING:
    from outputs._reading.result import Result

Advance = Callable[[int], None]
Write = Callable[["Result", Path, Advance], None]


@dataclass(frozen=True)
class Format:
    """How results are exported to one format.

    Attributes:
        name: The format's name, and that of the module here.
        suffix: Of its files.
        library: What it needs besides h5py and numpy; None for nothing.
    """

    name: str
    suffix: str
    library: str | None = None

    def writer(self) -> Write:
        """The function that writes the format.

        Raises:
            MissingDependencyError: If its library is not installed.
        """
        if self.library is not None:
            load(self.library, "export", f"The export to {self.name}")
        module = importlib.import_module(f"{__name__}.{self.name}")
        return module.write


FORMATS = {
    form.name: form
    for form in (
        Format("npy", ".npy"),
        Format("npz", ".npz"),
        Format("zarr", ".zarr", "zarr"),
        Format("mat", ".mat"),
        Format("netcdf", ".nc", "h5netcdf"),
    )
}
