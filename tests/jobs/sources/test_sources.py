"""Every source of inputs and vectors: its arrays, what is not read, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from jobs.configuration.schema import Hdf5Source, NumpySource, SafetensorsSource, TorchSource
from jobs.errors import JobError
from jobs.job import Job
from jobs.sources.reading import read_source
from jobs.sources.source_array import SourceArray
from outputs import Result

Resolve = Callable[..., Job]
Run = Callable[..., Result]
GP = ("op=jacobian", "function=gp_residual", "function.n=5", "function.inducing=3")
POINTS = np.array([0.5, 1.5, 2.5])


def write_files(directory: Path) -> None:
    """Write the same point in every format, and an array of ten points."""
    many = np.arange(30.0).reshape(10, 3)
    many[7] = POINTS
    scale = np.array(0.25)
    arrays = {"inducing_points": POINTS, "log_lengthscale": scale}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    np.save(directory / "points.npy", POINTS)
    np.save(directory / "many.npy", many)
    np.save(directory / "integers.npy", np.array([0, 1, 2]))
    np.savez(directory / "point.npz", **arrays, other=many)  # pyright: ignore
    save_file(tensors, directory / "point.safetensors")
    save_file({"half": tensors["inducing_points"].bfloat16()}, directory / "half.safetensors")
    torch.save(tensors, directory / "point.pt")
    torch.save(tensors["inducing_points"], directory / "single.pt")
    torch.save([1, 2], directory / "list.pt")
    with h5py.File(directory / "point.h5", "w") as file:
        file["a/inducing_points"] = many
        file["a/log_lengthscale"] = scale
    table = pa.table({"a": POINTS, "b": POINTS + 1, "word": ["x", "y", "z"], "gap": [1.0, None, 3]})
    pyarrow.parquet.write_table(table, directory / "table.parquet")
    pyarrow.csv.write_csv(table, directory / "table.csv")
    (directory / "damaged.parquet").write_bytes(b"PAR1 and no more")
    (directory / "damaged.csv").write_text("a,b\n1\n1,2,3\n")


@pytest.fixture
def files(directory: Path) -> Path:
    write_files(directory)
    return directory


SCALE = "inputs.tensors.log_lengthscale=0.25"
NAMED = ("inputs=named", SCALE)
SOURCES = {
    "npz": [
        "inputs=numpy",
        "inputs.path=point.npz",
        "inputs.arrays=[inducing_points,log_lengthscale]",
    ],
    "safetensors": ["inputs=safetensors", "inputs.path=point.safetensors"],
    "torch": ["inputs=torch", "inputs.path=point.pt"],
    "constants": [
        "inputs=constants",
        "inputs.values.inducing_points=[0.5,1.5,2.5]",
        "inputs.values.log_lengthscale=0.25",
    ],
    "npy": [*NAMED, "inputs.tensors.inducing_points=points.npy"],
    "npz member": [*NAMED, "inputs.tensors.inducing_points=point.npz:inducing_points"],
    "safetensors member": [
        *NAMED,
        "inputs.tensors.inducing_points=point.safetensors:inducing_points",
    ],
    "torch member": [*NAMED, "inputs.tensors.inducing_points=point.pt:inducing_points"],
    "single tensor": [*NAMED, "inputs.tensors.inducing_points=single.pt"],
    "csv member": [*NAMED, "inputs.tensors.inducing_points=table.csv:a"],
    "parquet member": [*NAMED, "inputs.tensors.inducing_points=table.parquet:a"],
    "list": [*NAMED, "inputs.tensors.inducing_points=[0.5,1.5,2.5]"],
    "slice of npy": [
        *NAMED,
        "inputs.tensors.inducing_points={source: numpy, path: many.npy, slice: 7}",
    ],
    "slice of hdf5": [
        *NAMED,
        "inputs.tensors.inducing_points={source: hdf5, path: point.h5, "
        "datasets: [/a/inducing_points], slice: '-3,:'}",
    ],
    "table": [
        *NAMED,
        "inputs.tensors.inducing_points={source: table, path: table.csv, columns: [a]}",
    ],
}


@pytest.mark.parametrize("overrides", SOURCES.values(), ids=SOURCES)
def test_every_source_gives_the_same_point(
    overrides: list[str], files: Path, resolved: Resolve
) -> None:
    job = resolved(*GP, *overrides)
    assert list(job.point) == ["inducing_points", "log_lengthscale"]
    assert job.point["inducing_points"].tolist() == POINTS.tolist()
    assert float(job.point["log_lengthscale"]) == 0.25
    assert {tensor.dtype for tensor in job.point.values()} == {torch.float64}


def test_the_point_of_an_earlier_result(files: Path, run_job: Run, resolved: Resolve) -> None:
    earlier = run_job(*GP, "inputs=random", "inputs.seed=5")
    job = resolved(*GP, "inputs=result", f"inputs.path={earlier.path}")
    for name, array in earlier.points.items():
        np.testing.assert_array_equal(job.point[name].numpy(), array)
    assert job.fingerprint == earlier.fingerprint


def test_columns_become_a_matrix(files: Path, resolved: Resolve) -> None:
    (files / "own.py").write_text("def f(x, y): return x.sum() * y.sum()\n")
    own = ("op=jacobian", "function=python", "function.target=own:f")
    table = ("inputs=table", "inputs.path=table.parquet", "inputs.columns={x: [a,b], y: b}")
    job = resolved(*own, *table)
    np.testing.assert_array_equal(job.point["x"].numpy(), np.stack([POINTS, POINTS + 1], axis=1))
    np.testing.assert_array_equal(job.point["y"].numpy(), POINTS + 1)


def test_random_numbers_for_one_of_several(files: Path, resolved: Resolve) -> None:
    draw = "inputs.tensors.inducing_points={source: random, seed: 3}"
    job, again = (resolved(*GP, *NAMED, draw) for _ in range(2))
    assert job.point["inducing_points"].shape == (3,)
    assert torch.equal(job.point["inducing_points"], again.point["inducing_points"])


@pytest.mark.parametrize(
    "source",
    [
        ["vectors=numpy", "vectors.path=many.npy"],
        ["vectors=hdf5", "vectors.path=point.h5", "vectors.datasets=[/a/inducing_points]"],
        ["vectors=named", "vectors.tensors.x=many.npy"],
    ],
    ids=lambda source: source[0],
)
def test_vectors_from_the_same_sources(source: list[str], files: Path, run_job: Run) -> None:
    mlp = ("function=mlp", "function.n=3", "strategy=vectorize")
    result = run_job("op=vjp", *mlp, *source)
    matrix = run_job("op=jacobian", *mlp)[...]
    np.testing.assert_allclose(result[...], np.load("many.npy") @ matrix, rtol=1e-10)


# What stays on the disk


def values(config: Any) -> Any:
    (array,) = read_source("inputs", config).values()
    return array.values


def test_files_are_mapped_or_read_later(files: Path) -> None:
    assert isinstance(values(NumpySource("numpy", "many.npy")), np.memmap)
    assert isinstance(
        values(Hdf5Source("hdf5", "point.h5", None, ["/a/inducing_points"])), h5py.Dataset
    )
    mapped = [
        values(SafetensorsSource("safetensors", "point.safetensors", None, ["inducing_points"])),
        values(TorchSource("torch", "single.pt")),
    ]
    maps = Path("/proc/self/maps")
    if maps.exists():
        text = maps.read_text()
        assert "point.safetensors" in text
        assert "single.pt" in text
    for tensor in mapped:
        assert tensor.tolist() == POINTS.tolist()


@pytest.mark.parametrize("dtype", ["f4", "f2", ">f8", "i2", "u1", "?", "c8"])
def test_pieces_hold_all_values(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.sources.source_array.BYTES_AT_ONCE", 6)
    array = (np.arange(12).reshape(4, 3) % 5).astype(dtype)
    pieces = list(SourceArray(array, "here").pieces())
    assert len(pieces) > 1
    np.testing.assert_array_equal(torch.cat(pieces).numpy(), array)


def test_bfloat16_is_read(files: Path) -> None:
    (array,) = read_source("inputs", SafetensorsSource("safetensors", "half.safetensors")).values()
    assert array.is_floating
    assert array.tensor(torch.float64, torch.device("cpu")).tolist() == POINTS.tolist()


# Sources that do not fit


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        (["inputs=safetensors", "inputs.path=no.safetensors"], "there is no such file; looked for"),
        (["inputs=safetensors", "inputs.path=point.pt"], "not a readable .safetensors file"),
        (
            ["inputs=safetensors", "inputs.path=point.safetensors", "inputs.tensors=[inducing]"],
            "inputs.tensors=inducing: valid are inducing_points, log.*did you mean inducing_points",
        ),
        (["inputs=torch", "inputs.path=point.npz"], "not a readable file of torch.save|more than"),
        (["inputs=torch", "inputs.path=list.pt"], "a value of type list; valid is a tensor or a"),
        (
            [
                "inputs=numpy",
                "inputs.path=point.npz",
                "inputs.arrays=[inducing_points,log_lengthscale,other]",
            ],
            "the source holds .*other; the function needs",
        ),
        (
            ["inputs=numpy", "inputs.path=point.npz", "inputs.arrays=[log_length]"],
            "inputs.arrays=log_length: .*did you mean log_lengthscale",
        ),
        (["inputs=table", "inputs.path=points.npy"], "valid are files .csv and .parquet"),
        (
            ["inputs=table", "inputs.path=damaged.parquet"],
            "damaged.parquet: this is not a readable",
        ),
        (["inputs=table", "inputs.path=damaged.csv"], "damaged.csv: this is not a readable .csv"),
        (["inputs=table", "inputs.path=table.csv", "inputs.columns=[c]"], "columns=c: valid are a"),
        (["inputs=table", "inputs.path=table.csv", "inputs.columns=[]"], "valid is a list of col"),
        (["inputs=result", "inputs.path=point.h5"], "inputs.path=point.h5: "),
        (["inputs=constants"], "inputs.values: a value is needed for each tensor"),
        (
            ["inputs=constants", "inputs.values.x=[[1],[2,3]]"],
            "lists within have different",
        ),
        (["inputs=constants", "inputs.values.x=text"], "valid are numbers and nested lists"),
        (["inputs=named"], "a source is needed for each tensor"),
        ([*NAMED, "inputs.tensors.inducing_points=points.txt"], "points.txt: valid are files .npy"),
        ([*NAMED, "inputs.tensors.inducing_points=point.h5"], "a dataset is needed, such as"),
        ([*NAMED, "inputs.tensors.inducing_points=point.npz"], "choose one of them"),
        ([*NAMED, "inputs.tensors.inducing_points={path: x}"], "valid is a path such as x.npy"),
        (
            [*NAMED, "inputs.tensors.inducing_points={source: nmpy, path: x}"],
            "source=nmpy: .*did you mean numpy",
        ),
        ([*NAMED, "inputs.tensors.inducing_points={source: numpy}"], "path: a value is needed"),
        (
            [*NAMED, "inputs.tensors.inducing_points={source: numpy, paht: x}"],
            r"did you mean inputs.tensors.inducing_points.path\?",
        ),
        (
            [*NAMED, "inputs.tensors.inducing_points=table.csv:word"],
            "table.csv, columns word: inducing_points is of dtype object",
        ),
        (
            [*NAMED, "inputs.tensors.inducing_points=table.csv:gap"],
            "table.csv, columns gap: inducing_points holds 1 values that are not finite",
        ),
        (
            [*NAMED, "inputs.tensors.inducing_points=many.npy"],
            r"inputs.tensors.inducing_points.path=many.npy: .* shape \(10, 3\); .* needs \(3,\)",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_source_that_does_not_fit_is_reported(
    overrides: list[str], pattern: str, files: Path, resolved: Resolve
) -> None:
    with pytest.raises(JobError, match=pattern) as caught:
        resolved(*GP, *overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("10", r"there is not an index 10 in dimension 0; the shape is \(10, 3\)"),
        ("0,0,0", r"this has 3 dimensions; the shape is \(10, 3\)"),
        ("a:b", "a:b is not an index; valid are integers and ranges"),
        ("::0", "::0 is not an index"),
        ("0:2,", " is not an index"),
    ],
)
def test_a_slice_that_does_not_exist_is_reported(text: str, pattern: str) -> None:
    with pytest.raises(JobError, match=f"here, slice {text}: {pattern}"):
        SourceArray(np.zeros((10, 3)), "here").part(text)


@pytest.mark.parametrize("text", ["7", "-1", "0:4", ":", "2:8:3", "-4:", "3,1", ":,1", "1:3,-2:"])
def test_slices_are_pythons(text: str, tmp_path: Path) -> None:
    array = np.arange(30).reshape(10, 3)
    expected = eval(f"array[{text}]", {"array": array})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = array
        for given in (array, torch.from_numpy(array), file["x"]):
            part = SourceArray(given, "here").part(text)
            found = part.tensor(torch.int64, torch.device("cpu"))
            np.testing.assert_array_equal(found.numpy(), expected)
