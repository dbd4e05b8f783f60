"""Points from every source, and the messages if they do not fit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import JobError
from jobs.job import Job
from outputs import Result
from tests.jobs.support.own_functions import of
from tests.jobs.support.source_files import SAVERS, options, write_bad_files

Resolve = Callable[..., Job]
Run = Callable[..., Result]


def test_the_default_point_is_the_problems_own(resolved: Resolve) -> None:
    job = resolved("op=jacobian", "function=rosenbrock", "function.n=4")
    assert list(job.point) == ["x"]
    assert job.point["x"].tolist() == [-1.2, 1, -1.2, 1]


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_random_points_are_seeded_and_the_same_in_every_dtype(
    distribution: str, resolved: Resolve
) -> None:
    overrides = (
        *("op=jacobian", "function=gp_residual", "function.n=50", "function.inducing=40"),
        *("inputs=random", f"inputs.distribution={distribution}", "inputs.scale=0.5"),
    )
    job, again, other, single = (
        resolved(*overrides, *more) for more in ([], [], ["inputs.seed=1"], ["dtype=float32"])
    )
    assert list(job.point) == ["inducing_points", "log_lengthscale"]
    x = job.point["inducing_points"]
    assert x.shape == (40,)
    assert torch.equal(x, again.point["inducing_points"])
    assert not torch.equal(x, other.point["inducing_points"])
    assert torch.equal(x.float(), single.point["inducing_points"])
    mean, deviation = (0, 0.5) if distribution == "normal" else (0.25, 0.5 / 12**0.5)
    assert abs(float(x.mean()) - mean) < 4 * deviation / 40**0.5
    assert job.fingerprint == again.fingerprint
    assert len({each.fingerprint for each in (job, other, single)}) == 3


@pytest.mark.parametrize("kind", ["<f8", ">f4", "<i2", "|b1"])
@pytest.mark.parametrize("save", SAVERS)
def test_a_point_from_a_file(
    save: Callable[..., list[str]], kind: str, directory: Path, resolved: Resolve
) -> None:
    array = np.array([1, 0, 3, 4]).astype(kind)
    job = resolved(
        "op=jacobian",
        "function=mlp",
        "function.n=4",
        *options("inputs", save(directory, {"x": array})),
    )
    assert job.point["x"].tolist() == array.tolist()
    assert job.point["x"].dtype == torch.float64


@pytest.mark.parametrize("save", SAVERS[1:])
def test_several_arrays_are_found_by_name(
    save: Callable[..., list[str]], directory: Path, resolved: Resolve
) -> None:
    arrays = {"log_lengthscale": np.array(0.25), "inducing_points": np.arange(3.0)}
    overrides = ("op=jacobian", "function=gp_residual", "function.n=5", "function.inducing=3")
    job = resolved(*overrides, *options("inputs", save(directory, arrays)))
    assert list(job.point) == ["inducing_points", "log_lengthscale"]
    assert job.point["log_lengthscale"].shape == ()
    assert job.point["inducing_points"].tolist() == [0, 1, 2]


def test_arguments_have_names_and_their_own_order(own: Path, run_job: Run) -> None:
    result = run_job(*of("both", "points"))
    assert [tensor.name for tensor in result.columns] == ["x", "y"]
    assert result.points["y"].tolist() == [2, 2]
    np.testing.assert_array_equal(result.block("output0", "y"), 3 * np.eye(2))
    assert [t.name for t in run_job(*of("any_number", "points")).columns] == ["y", "x"]
    numbered = run_job(*of("any_number", None), "inputs=random", "inputs.shapes=[[2],[3]]")
    assert [tensor.name for tensor in numbered.columns] == ["input0", "input1"]


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        (
            ["numpy", "path=nowhere.npy"],
            r"inputs.path=nowhere.npy: there is no such file.*/nowhere",
        ),
        (["numpy", "path=."], r"inputs.path=\.: this is a directory"),
        (["numpy", "path=text.txt"], r"inputs.path=text.txt: .*readable"),
        (["numpy", "path=damaged.npy"], r"inputs.path=damaged.npy: .*readable"),
        (["numpy", "path=damaged.npz"], r"inputs.path=damaged.npz: .*readable"),
        (["numpy", "path=objects.npy"], r"objects.npy: .*without Python objects"),
        (["numpy", "path=five.npy"], r"x has the shape \(5,\); the function needs \(4,\)"),
        (["numpy", "path=nan.npy"], r"x holds 2 values that are not finite"),
        (["numpy", "path=text.npy"], r"x is of dtype <U1"),
        (["numpy", "path=named.npz"], r"the source holds a, b; the function needs x"),
        (["hdf5", "path=nowhere.h5", "datasets=[x]"], r"inputs.path=nowhere.h5: there is no such"),
        (["hdf5", "path=text.txt", "datasets=[x]"], r"text.txt: .*not a readable HDF5"),
        (["hdf5", "path=damaged.h5", "datasets=[x]"], r"damaged.h5: .*not a readable HDF5"),
        (
            ["hdf5", "path=a.h5", "datasets=[/group/y]"],
            r"/group/y.*/group/x, /other/x; did you mean",
        ),
        (["hdf5", "path=a.h5", "datasets=[/group]"], r"datasets=/group: valid are /group/x"),
        (["hdf5", "path=a.h5", "datasets=[/group/x,/other/x]"], r"the same last name"),
        (["hdf5", "path=a.h5", "datasets=[]"], r"the source holds|needs x"),
        (
            ["random", "distribution=cauchy"],
            r"inputs.distribution=cauchy: valid are normal, uniform",
        ),
        (["random", "seed=-2"], r"inputs.seed=-2: valid is an integer from 0"),
        (["random", "shapes=[[3]]"], r"x has the shape \(3,\); the function needs \(4,\)"),
        (["random", "shapes=[[-1]]"], r"inputs.shapes=\[\[-1\]\].*0 or more"),
        (["random", "shapes=[[4],[4]]"], r"the function needs x"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_point_that_does_not_fit_is_reported(
    overrides: list[str], pattern: str, directory: Path, resolved: Resolve
) -> None:
    write_bad_files(directory)
    with pytest.raises(JobError, match=pattern):
        resolved("op=jacobian", "function=mlp", "function.n=4", *options("inputs", overrides))
