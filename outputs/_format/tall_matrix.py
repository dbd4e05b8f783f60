"""What the stores of many matrices have in common, each presented as one tall matrix."""

from __future__ import annotations

from typing import Any, Self

import h5py
import numpy as np

from outputs._storage.regions import Region


class TallMatrix:
    """A dataset presented as a matrix of two dimensions.

    It implements the part of the interface of a two-dimensional `h5py.Dataset` that this package
    uses, as far as it does not depend on how entries are stored.

    Args:
        dataset: The dataset.
        shape: (rows, columns) of the tall matrix.

    Attributes:
        dataset: The dataset.
        shape: (rows, columns) of the tall matrix.
        dtype: Dtype of the entries.
        is_virtual: False.
        file: The file.
    """

    is_virtual = False

    def __init__(self, dataset: h5py.Dataset, shape: tuple[int, int]) -> None:
        self.dataset = dataset
        self.shape = shape
        self.dtype: np.dtype = dataset.dtype
        self.file = dataset.file

    @property
    def id(self) -> Self:
        """The low-level interface, which takes coordinates in the tall matrix."""
        return self

    def _bounded(self, region: Region) -> Region:
        rows, columns = (
            slice(*part.indices(length)[:2])
            for part, length in zip(region, self.shape, strict=True)
        )
        return rows, columns

    def get_create_plist(self) -> Any:
        """Return the creation properties, as `h5py.h5d.DatasetID` does."""
        return self.dataset.id.get_create_plist()

    def get_type(self) -> Any:
        """Return the HDF5 type, as `h5py.h5d.DatasetID` does."""
        return self.dataset.id.get_type()

    def get_offset(self) -> int | None:
        """Return the offset of contiguous data, as `h5py.h5d.DatasetID` does."""
        return self.dataset.id.get_offset()

    def get_storage_size(self) -> int:
        """Return the bytes occupied in the file, as `h5py.h5d.DatasetID` does."""
        return self.dataset.id.get_storage_size()
