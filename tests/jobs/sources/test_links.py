"""HDF5 inputs whose data are elsewhere: refused, or with links=true read only where they exist."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from jobs.configuration.schema import Hdf5Source
from jobs.errors import ConfigurationError
from jobs.job import Job
from jobs.sources.many_files import read_files
from jobs.sources.reading import read_source

VALUES = np.arange(1.0, 11.0)


def virtual(file: h5py.File, *parts: tuple[str, slice, slice]) -> None:
    layout = h5py.VirtualLayout((10,), "float64")
    for name, here, there in parts:
        layout[here] = h5py.VirtualSource(name, "data", (10,))[there]
    file.create_virtual_dataset("x", layout, fillvalue=0)


HALVES = (slice(0, 5), slice(0, 5)), (slice(5, 10), slice(5, 10))
OF_FILES: dict[str, Any] = {
    "soft link": lambda f: f.update(y=VALUES, x=h5py.SoftLink("/y")),
    "external link": lambda f: f.update(x=h5py.ExternalLink("other.h5", "/data")),
    "external file": lambda f: f.create_dataset(
        "x", (10,), "float64", external=[("raw.bin", 0, 40), ("raw.bin", 40, h5py.h5f.UNLIMITED)]
    ),
    "virtual": lambda f: virtual(f, *(("other.h5", *half) for half in HALVES)),
    "nested virtual": lambda f: virtual(f, ("inner.h5", slice(0, 10), slice(0, 10))),
}


@pytest.fixture
def files(directory: Path) -> Path:
    with h5py.File("other.h5", "w") as file:
        file["data"] = VALUES
    Path("raw.bin").write_bytes(VALUES.tobytes())
    with h5py.File("inner.h5", "w") as file:
        virtual(file, *(("other.h5", *half) for half in HALVES))
        file.move("x", "data")
    for name, write in OF_FILES.items():
        with h5py.File(f"{name}.h5", "w") as file:
            write(file)
    return directory


def read(name: str, links: bool) -> np.ndarray:
    source = Hdf5Source("hdf5", f"{name}.h5", None, ["/x"], links)
    return np.asarray(read_source("inputs", source)["x"].values[()])


@pytest.mark.parametrize("name", OF_FILES)
def test_what_lies_elsewhere_is_refused_or_followed(files: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"dataset /x: .*inputs\.links=true follows links"):
        read(name, links=False)
    np.testing.assert_array_equal(read(name, links=True), VALUES)
    for number in range(2):
        shutil.copy(f"{name}.h5", f"many{number}.h5")
    many = Hdf5Source("hdf5", "many?.h5", None, ["x"])
    with pytest.raises(ConfigurationError, match=r"many0\.h5"):
        read_files("inputs", many)
    many.links = True
    assert np.asarray(read_files("inputs", many)["x"].values).shape == (2, 10)


@pytest.mark.parametrize("name", [name for name in OF_FILES if name != "soft link"])
def test_what_is_missing_is_an_error_and_never_zeros(files: Path, name: str) -> None:
    Path("other.h5").unlink()
    Path("raw.bin").unlink()
    with pytest.raises(ConfigurationError, match=r"is not|lacks|leads nowhere"):
        read(name, links=True)


def incomplete(write: Callable[[h5py.File], None], change: Callable[[], Any] | None = None) -> Any:
    return write, change or (lambda: None)


INCOMPLETE = {
    "a part without source": incomplete(lambda f: virtual(f, ("other.h5", *HALVES[0]))),
    "one source twice": incomplete(
        lambda f: virtual(f, ("other.h5", *HALVES[0]), ("other.h5", *HALVES[0]))
    ),
    "a source that is too short": incomplete(
        OF_FILES["virtual"], lambda: replaced("other.h5", VALUES[:8])
    ),
    "a source of another rank": incomplete(
        OF_FILES["virtual"], lambda: replaced("other.h5", VALUES[None])
    ),
    "a source without the dataset": incomplete(
        OF_FILES["virtual"], lambda: replaced("other.h5", VALUES, "other")
    ),
    "a loop": incomplete(lambda f: virtual(f, ("broken.h5", slice(0, 10), slice(0, 10)))),
    "a loop of soft links": incomplete(lambda f: f.update(x=h5py.SoftLink("/x"))),
    "a loop of files": incomplete(lambda f: f.update(x=h5py.ExternalLink("broken.h5", "/x"))),
    "an external file that is too short": incomplete(
        OF_FILES["external file"], lambda: Path("raw.bin").write_bytes(b"12345678" * 9)
    ),
}


def replaced(path: str, values: np.ndarray, name: str = "data") -> None:
    with h5py.File(path, "w") as file:
        file[name] = values


@pytest.mark.parametrize("name", INCOMPLETE)
def test_incomplete_data_are_an_error(files: Path, name: str) -> None:
    write, change = INCOMPLETE[name]
    with h5py.File("broken.h5", "w") as file:
        write(file)
        if name == "a loop":
            file["data"] = h5py.SoftLink("/x")
    change()
    for links in (False, True):
        with pytest.raises(ConfigurationError, match=r"broken\.h5"):
            read("broken", links)


def test_a_prefix_that_sends_hdf5_elsewhere_is_refused(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HDF5_VDS_PREFIX", "/tmp")
    with pytest.raises(ConfigurationError, match="HDF5_VDS_PREFIX"):
        read("virtual", links=True)


def test_a_password_file_is_not_a_point(files: Path, resolved: Callable[..., Job]) -> None:
    with h5py.File("point.h5", "w") as file:
        file.create_dataset("x", (8,), "u1", external=[("/etc/passwd", 0, 8)])
        layout = h5py.VirtualLayout((8,), "float64")
        layout[:] = h5py.VirtualSource("missing.h5", "x", (8,))
        file.create_virtual_dataset("y", layout, fillvalue=0)
    options = ("op=hessian", "function=rosenbrock", "function.n=8", "inputs=hdf5")
    for name in ("x", "y"):
        with pytest.raises(ConfigurationError, match="is refused"):
            resolved(*options, "inputs.path=point.h5", f"inputs.datasets=[{name}]")
    with pytest.raises(ConfigurationError, match="HDF5 would read zeros"):
        resolved(*options, "inputs.path=point.h5", "inputs.datasets=[y]", "inputs.links=true")


def test_following_links_is_recorded(files: Path, resolved: Callable[..., Job]) -> None:
    job = resolved(
        *("op=hessian", "function=rosenbrock", "function.n=10", "inputs=named"),
        "inputs.tensors.x={source: hdf5, path: inner.h5, datasets: [data], links: true}",
    )
    assert "links: true" in job.configuration
    np.testing.assert_array_equal(job.point["x"].numpy(), VALUES)
