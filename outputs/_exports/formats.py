"""List the formats and find the module that writes each.

The module of a format has one public function, ``write``, which streams a result into a new file.
It takes the result, a path at which nothing exists, and ``advance``, which it calls with the number
of bytes of each piece written. It leaves a closed file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from outputs._optional import load
from outputs._reading.views.protocol import DenseResult
from outputs._scanning.sequential import Advance

Write = Callable[[DenseResult, Path, Advance], None]


@dataclass(frozen=True)
class Format:
    """A format to which results can be exported.

    Attributes:
        name: The format's name, which is also the name of the module in this folder.
        suffix: Suffix of the format's files.
        library: The module that the export needs besides h5py and numpy; None if there is none.
    """

    name: str
    suffix: str
    library: str | None = None

    def writer(self) -> Write:
        """Return the function that writes the format.

        Raises:
            MissingDependencyError: If its library is not installed.
        """
        if self.library is not None:
            load(self.library, "export", f"The export to {self.name}")
        module = importlib.import_module(f"{__package__}.{self.name}")
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
