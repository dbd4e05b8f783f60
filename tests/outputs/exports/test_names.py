"""Any tensor name becomes one name inside the export: distinct, reversible, and never a path."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from urllib.parse import unquote

import h5py
import mat73
import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given
from hypothesis import strategies as st

from outputs import ResultWriter
from outputs._reading.views.names import escaped
from outputs.export import main as export

NAMES = (
    *("..", "...", ".", "", "/", "//", "a/b", "a_b", "a b", "a%2Fb", "%", "%2E", "/etc/passwd"),
    *("../../up", "..\\up", "C:\\x", "a\x00b", "a\nb", "\x1b[2J", ".hidden", "-rf", "~", "$HOME"),
    *(
        "größe",
        "gro\u0308ße",
        "\u212a",
        "k",
        "雪",
        "\U0001f600",
        "\u202eabc",
        "a" * 3000,
        "ä" * 999,
    ),
    *("a" * 2999 + "b", "con", "NUL.txt", "zarr.json", "__x", "x", "x_0", "x_real", "2.w", "w.2"),
    *("weights.0.bias", "*", "?", "|", '"', "<", ">", " ", "trailing ", "dot."),
)


@given(st.text(max_size=300), st.text(max_size=300))
def test_names_are_safe_distinct_and_reversible(one, other):
    for name in (one, other):
        text = escaped(name)
        assert 0 < len(text.encode()) <= 200
        assert text[0] != "."
        assert not set(text) & set('/\\:*?"<>|$~') - {"~"}
        assert all(c.isalnum() or c in "%_-.~" for c in text)
        if "%~" not in text:
            assert ("" if text == "%" else unquote(text)) == name
    assert (escaped(one) == escaped(other)) is (one == other)


def test_listed_names_are_distinct_even_where_case_is_kept():
    assert len({escaped(name) for name in NAMES}) == len(NAMES)


@pytest.fixture
def result(describe, tmp_path) -> Path:
    # Complex values have two variables each in netCDF.
    point = {name: np.array([number, 1.0 + 1j * number]) for number, name in enumerate(NAMES)}
    path = tmp_path / "in" / "r.h5"
    path.parent.mkdir()
    provenance = {"seed": 7, "../up": "x", "host": "/"}
    with ResultWriter.create(path, describe(point=point, provenance=provenance)) as writer:
        writer.write(0, 12, np.ones((12, 20)))
        writer.finish({})
    return path


def original(new: str, names: dict[str, str]) -> str:
    return names.get(new, new)


@pytest.mark.parametrize("to", ["npy", "npz", "zarr", "mat", "netcdf"])
def test_every_name_is_exported_beside_the_others(result, tmp_path, to):
    folder = tmp_path / "out"
    folder.mkdir()
    before = {path for path in tmp_path.rglob("*") if folder not in path.parents}
    target = folder / f"out.{to}"
    assert export([str(result), "--to", to, "-o", str(target)]) == 0
    assert list(folder.iterdir()) == [target]
    assert {path for path in tmp_path.rglob("*") if folder not in path.parents} == before
    if to == "npy":
        return
    found = READERS[to](target)
    assert set(found) == set(NAMES)
    for number, name in enumerate(NAMES):
        values = np.asarray(found[name]).reshape(-1)
        assert values.tolist() == [number, 1.0 + 1j * number], name


def of_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if "/" in name or name.startswith(".")]
    with np.load(path, allow_pickle=False) as archive:
        names = json.loads(str(archive["about_names"]))["point"]
        flat = [key for key in archive.files if key.startswith("point_")]
        return {original(key.removeprefix("point_"), names): archive[key] for key in flat}


def of_zarr(path: Path) -> dict[str, np.ndarray]:
    group = zarr.open_group(path, mode="r")
    names = json.loads(str(group.attrs["names"]))["point"]
    members = zarr.open_group(path / "point", mode="r")
    return {original(key, names): np.asarray(members[key][...]) for key in members.array_keys()}  # pyright: ignore


def of_netcdf(path: Path) -> dict[str, np.ndarray]:
    with xarray.open_dataset(path, engine="h5netcdf") as dataset:
        names = json.loads(dataset.attrs["names"])["point"]
        found = {}
        for key in map(str, dataset.variables):
            if key.startswith("point_") and key.endswith("_real"):
                stem = key.removesuffix("_real")
                name = original(stem.removeprefix("point_"), names)
                found[name] = dataset[key].values + 1j * dataset[f"{stem}_imag"].values
        return found


def of_mat(path: Path) -> dict[str, np.ndarray]:
    found = mat73.loadmat(path)
    names = json.loads(found["about"]["fields"])["point"]
    with h5py.File(path) as file:
        assert all(len(key) <= 63 and key.isidentifier() for key in file["point"])  # pyright: ignore
    return {original(key, names): values for key, values in found["point"].items()}


READERS = {"npz": of_npz, "zarr": of_zarr, "netcdf": of_netcdf, "mat": of_mat}
