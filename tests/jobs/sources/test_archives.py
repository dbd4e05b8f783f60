"""Archives that declare more than they should: only wanted members are read, none beyond memory."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.configuration.schema import NumpySource
from jobs.errors import ConfigurationError
from jobs.job import Job
from jobs.sources.reading import read_source
from jobs.sources.source_array import SourceArray


def header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    facts = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, facts)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


@pytest.fixture
def archive(directory: Path) -> Path:
    """Write an archive with a small array beside what must not be read."""
    path = directory / "a.npz"
    np.savez(path, x=np.arange(8.0), unused=np.array([{}], dtype=object))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("short.npy", header((100,)) + bytes(80))
        file.writestr("endless.npy", header((2**50,)))
        file.writestr("noise.npy", b"no array")
        with file.open("bomb.npy", "w") as member:
            member.write(header((2**24,)))
            for _ in range(2**7):
                member.write(bytes(2**20))
    return path


def read(path: Path, *names: str) -> dict[str, SourceArray]:
    source = NumpySource("numpy", str(path), arrays=list(names))
    return dict(read_source("inputs", source))


def test_only_wanted_members_are_read(archive: Path, resolved: Callable[..., Job]) -> None:
    np.testing.assert_array_equal(read(archive, "x")["x"].values[()], np.arange(8.0))
    job = resolved(
        *("op=hessian", "function=rosenbrock", "function.n=8", "inputs=numpy"),
        *(f"inputs.path={archive}", "inputs.arrays=[x]"),
    )
    assert job.point["x"].tolist() == list(range(8))
    with pytest.raises(ConfigurationError, match=r"inputs\.arrays=y: valid are x, unused, short"):
        read(archive, "y")


@pytest.mark.parametrize("name", ["short", "endless", "noise"])
def test_members_that_are_no_arrays_of_their_size_are_refused(archive: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"a\.npz: this is not a readable"):
        read(archive, name)


def test_python_objects_are_refused_where_they_are_used(archive: Path) -> None:
    unused = read(archive, "unused")["unused"]
    with pytest.raises(ConfigurationError, match=r"unused\.npy cannot be read"):
        unused.values[()]


def test_a_member_beyond_memory_is_refused_before_it_is_read(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.sources.npz.available_host_memory", lambda: (2**26, ""))
    bomb = read(archive, "bomb")["bomb"]
    assert bomb.shape == (2**24,)
    with pytest.raises(ConfigurationError, match=r"declares 134 MB, and 67\.1 MB of memory are"):
        bomb.values[()]


def test_a_pattern_beyond_memory_is_refused_before_it_is_read(
    archive: Path, resolved: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.sparsity.detection import find_sparsity

    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("indices.npy", bytes(2**27))
    job = resolved("op=jacobian", "function=burgers", "function.n=20", f"sparsity={archive}")
    monkeypatch.setattr("jobs.sources.npz.available_host_memory", lambda: (2**26, ""))
    with pytest.raises(ConfigurationError, match=r"a\.npz: the file declares 134 MB"):
        find_sparsity(job)
