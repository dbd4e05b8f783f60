"""Exports of a part of a matrix have the numbers of its lines, or are refused."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray

from outputs import ResultError, Selection, open_result
from outputs._exports.formats import FORMATS
from outputs.export import export

PART = Path(__file__).parents[1] / "data" / "format-5.1.h5"
ROWS, COLUMNS = [0, 1, 4], [0, 4]


@pytest.fixture
def written(tmp_path: Path) -> dict[str, Path]:
    found = {}
    with open_result(PART) as result:
        for name in ("npz", "netcdf", "zarr", "mat"):
            found[name] = tmp_path / name
            export(result, FORMATS[name], found[name])
    return found


def test_the_numbers_are_in_every_export_but_npy(written: dict[str, Path], tmp_path: Path) -> None:
    with np.load(written["npz"]) as archive:
        assert (archive["row"].tolist(), archive["column"].tolist()) == (ROWS, COLUMNS)
    options: dict[str, dict[str, Any]] = {
        "netcdf": {"engine": "h5netcdf"},
        "zarr": {"engine": "zarr", "consolidated": False},
    }
    for name, given in options.items():
        with xarray.open_dataset(written[name], **given) as dataset, open_result(PART) as result:
            assert dataset["jacobian"].sel(row=4, column=4) == result[2, 1]
    with h5py.File(written["mat"]) as file:
        numbers: Any = file["rows/numbers"]
        assert numbers[()].ravel().tolist() == [1, 2, 5]
    with open_result(PART) as result, pytest.raises(ResultError, match="npz, mat, netcdf and zarr"):
        export(result, FORMATS["npy"], tmp_path / "part.npy")
    # The list of formats that fit says so, too.
    with open_result(PART) as result, pytest.raises(ResultError, match="npy holds"):
        FORMATS["npy"].require_fitting(result)


@pytest.mark.parametrize("rows", [[0, 4, 1], [0, 1, 1], [-1, 0, 1], [0, 1, 5], [0, 1, 2]])
def test_numbers_that_do_not_fit_are_refused(rows: list[int]) -> None:
    with open_result(PART) as result:
        selection = result.selection
        assert selection is not None
        changed = {**vars(selection), "rows": np.array(rows)}
        with pytest.raises(ResultError, match="of the rows"):
            Selection(**changed).require_fitting(result.rows, result.columns)
