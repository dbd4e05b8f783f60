"""List the formats, say which of them fit a result, and find the module that writes each.

The module of a format has one public function, ``write``, which streams a result into a new file.
It takes the result, a path at which nothing exists, and ``advance``, which it calls with the number
of bytes of each piece written. It leaves a closed file. Formats for atoms take a `Structure` too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from outputs._errors import ResultError
from outputs._exports.structures import Structure, require_atoms
from outputs._optional import load
from outputs._reading.any_result import AnyResult
from outputs._reading.sparse_result import SparseResult
from outputs._scanning.sequential import Advance

Write = Callable[[Any, Path, Advance], None]


@dataclass(frozen=True)
class Format:
    """A format to which results can be exported.

    Attributes:
        name: The format's name.
        suffix: Suffix of the format's files.
        about: What it is.
        dense: The module in this folder that writes dense results; None if there is none.
        sparse: The module that writes sparse results; None if there is none.
        atoms: The module that writes Hessians by the positions of atoms; None if there is none.
        library: The module that the export needs besides h5py and numpy; None if there is none.
    """

    name: str
    suffix: str
    about: str
    dense: str | None = None
    sparse: str | None = None
    atoms: str | None = None
    library: str | None = None

    def require_fitting(self, result: AnyResult) -> None:
        """Check that the format can hold a result.

        Raises:
            ResultError: If it cannot, with the reason.
        """
        if isinstance(result, SparseResult):
            if self.sparse is None:
                raise ResultError(
                    f"{self.name} holds no sparse matrix, as {result.path} is one; "
                    f"{', '.join(name for name, form in FORMATS.items() if form.sparse)} do."
                )
            if result.selection is not None and self.sparse != "anndata":
                raise ResultError(
                    f"{self.name} holds no numbers of lines, and {result.path} holds "
                    f"{result.selection}; h5ad names each line."
                )
            return
        result.require_one_point("outputs.export")
        if self.atoms is not None:
            require_atoms(result, self.name)
        elif self.dense is None:
            raise ResultError(f"{self.name} holds a sparse matrix; that of {result.path} is dense.")
        elif self.dense == "npy" and result.selection is not None:
            raise ResultError(
                f"npy holds the matrix alone, without the numbers of its lines, and {result.path} "
                f"holds {result.selection}; npz, mat, netcdf and zarr have them."
            )

    def writer(self, result: AnyResult, structure: Structure | None = None) -> Write:
        """Return the function that writes a result.

        Args:
            result: The result.
            structure: The atoms, for formats that need them; None reads them from the result.

        Raises:
            MissingDependencyError: If the format's library is not installed.
            ResultError: If the format cannot hold the result.
        """
        self.require_fitting(result)
        if self.library is not None:
            load(self.library, "export", f"The export to {self.name}")
        name = self.sparse if isinstance(result, SparseResult) else self.atoms or self.dense
        write = importlib.import_module(f"{__package__}.{name}").write
        if self.atoms is None:
            return write
        assert not isinstance(result, SparseResult)
        structure = structure or Structure()
        structure.require_units_of(result)
        return partial(write, structure=structure)


FORMATS = {
    form.name: form
    for form in (
        Format("npy", ".npy", "NumPy's file of one array", "npy"),
        Format("npz", ".npz", "NumPy's archive; scipy.sparse.load_npz", "npz", "sparse_npz"),
        Format("zarr", ".zarr", "a directory, Zarr version 3", "zarr", library="zarr"),
        Format("mat", ".mat", "MATLAB 7.3", "mat", "sparse_mat"),
        Format("netcdf", ".nc", "netCDF-4", "netcdf", library="h5netcdf"),
        Format("mtx", ".mtx", "Matrix Market, text", sparse="matrix_market"),
        Format("h5ad", ".h5ad", "AnnData's HDF5", sparse="anndata"),
        Format("phonopy", ".FORCE_CONSTANTS", "phonopy's FORCE_CONSTANTS", atoms="phonopy_text"),
        Format(
            "phonopy-hdf5",
            ".force_constants.hdf5",
            "phonopy's force_constants.hdf5",
            atoms="phonopy_hdf5",
        ),
        Format(
            "phonopy-yaml", ".phonopy.yaml", "phonopy's YAML, with the cell", atoms="phonopy_yaml"
        ),
        Format("ase", ".vibrations.json", "ASE's VibrationsData", atoms="ase_json"),
    )
}
