"""Points, vectors and functions from every source, and the messages if they do not fit."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from jobs.errors import JobError
from jobs.execution.execute import execute
from jobs.job import Job
from outputs import Result

Resolve = Callable[..., Job]
Run = Callable[..., Result]

FUNCTIONS = """
import functools
import torch

def square(x): return x**2
def scalar(x): return (x**3).sum()
def both(x, y): return x.sum() * y, y.sum() * x
def several(x): return [x**2, x.sum()]
def named(x): return {"z/b": x**3, "a c": x.sum()}
def nested(x): return {"a": (x, x)}
def nothing(x): return ()
def none(x): return None
def number(x): return float(x.detach().sum())
def same_keys(x): return {1: x, "1": x}
def any_number(*xs): return sum(x.sum() for x in xs).reshape(1)
def with_default(x, power=2): return x**power
def needs_keyword(x, *, power): return x**power
def raising(x): raise ValueError("no good\\nsecond line")
def leaving(x): raise SystemExit(3)
def no_rows(x): return x[:0]
def integers(x): return (x > 0).long()
def turned(x): return x * (1 + 2j)
def absolute(x): return x.abs() ** 2
def divided(x): return x / 0

class Callable:
    def __call__(self, x): return x**2
    def method(self, x): return x**3

instance = Callable()
partial = functools.partial(with_default, power=3)
unnamed = lambda x: x**2
module = torch.nn.Linear(3, 2)
not_callable = 3

point = torch.arange(3.0) + 1
zero_dim = torch.tensor(2.0)
empty = torch.zeros(0)
whole = torch.arange(3)
unfinished = torch.tensor([1.0, float("nan"), 3.0])
complex_point = torch.ones(3, dtype=torch.complex128) * (1 + 1j)
list_of_floats = [1.0, 2.0]
def points(): return {"y": torch.ones(2) * 2, "x": torch.ones(3)}
def failing_point(): raise RuntimeError("no point")
"""


@pytest.fixture
def own(directory: Path) -> Path:
    """Write the user's module `own` into the directory in which jobs are started."""
    (directory / "own.py").write_text(FUNCTIONS)
    return directory


def of(name: str, point: str | None = "point") -> list[str]:
    given = [f"function.point=own:{point}"] if point else []
    return ["op=jacobian", "function=python", f"function.target=own:{name}", *given]


# The point of a built-in problem


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


def save_npy(path: Path, arrays: dict[str, np.ndarray]) -> list[str]:
    np.save(path / "a b.npy", next(iter(arrays.values())))
    return ["numpy", "path='a b.npy'"]


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> list[str]:
    np.savez(path / "it's.npz", **arrays)  # pyright: ignore[reportArgumentType]
    return ["numpy", 'path="it\'s.npz"']


def save_hdf5(path: Path, arrays: dict[str, np.ndarray]) -> list[str]:
    with h5py.File(path / "a=b.h5", "w") as file:
        for name, array in arrays.items():
            file[f"group/{name}"] = array
    names = ",".join(f"/group/{name}" for name in arrays)
    return ["hdf5", "path='a=b.h5'", f"datasets=[{names}]"]


SAVERS = [save_npy, save_npz, save_hdf5]


def options(group: str, saved: list[str]) -> list[str]:
    return [f"{group}={saved[0]}", *(f"{group}.{option}" for option in saved[1:])]


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


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("save", SAVERS)
def test_vectors_from_a_file(
    save: Callable[..., list[str]], count: int, directory: Path, run_job: Run
) -> None:
    vectors = np.random.default_rng(0).standard_normal((count, 4))
    overrides = (
        "function=mlp",
        "function.n=4",
        *options("vectors", save(directory, {"y": vectors})),
    )
    result = run_job("op=vjp", "strategy=vectorize", *overrides)
    matrix = run_job("op=jacobian", "strategy=reverse-loop", "function=mlp", "function.n=4")[...]
    np.testing.assert_allclose(result[...], vectors @ matrix, rtol=1e-10)
    np.testing.assert_array_equal(result.vectors["y"], vectors)


def test_random_vectors_are_seeded(resolved: Resolve) -> None:
    overrides = ("op=jvp", "function=mlp", "function.n=4", "vectors.count=3")
    job, again, other = (resolved(*overrides, f"vectors.seed={seed}") for seed in (0, 0, 1))
    assert job.vectors["x"].shape == (3, 4)
    assert torch.equal(job.vectors["x"], again.vectors["x"])
    assert not torch.equal(job.vectors["x"], other.vectors["x"])
    assert job.fingerprint == again.fingerprint != other.fingerprint


# Sources that do not fit


def write_bad_files(directory: Path) -> None:
    np.save(directory / "five.npy", np.ones(5))
    np.save(directory / "nan.npy", np.array([1, np.nan, np.inf, 4]))
    np.save(directory / "complex.npy", np.ones(4, complex))
    np.save(directory / "text.npy", np.array(["a", "b", "c", "d"]))
    np.save(directory / "objects.npy", np.array([{}, 1, 2, 3]), allow_pickle=True)
    np.savez(directory / "named.npz", a=np.ones(4), b=np.ones(4))
    np.savez(directory / "counts.npz", inducing_points=np.ones((2, 3)), log_lengthscale=np.ones(1))
    (directory / "damaged.npy").write_bytes((directory / "five.npy").read_bytes()[:-8])
    (directory / "damaged.npz").write_bytes((directory / "named.npz").read_bytes()[:-40])
    (directory / "text.txt").write_text("1 2 3 4")
    with h5py.File(directory / "a.h5", "w") as file:
        file["group/x"] = np.ones(4)
        file["other/x"] = np.ones(4)
    (directory / "damaged.h5").write_bytes((directory / "a.h5").read_bytes()[:600])


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        (
            ["numpy", "path=nowhere.npy"],
            r"inputs.path=nowhere.npy: there is no such file.*/nowhere",
        ),
        (["numpy", "path=."], r"inputs.path=\.: there is no such file"),
        (["numpy", "path=text.txt"], r"inputs.path=text.txt: .*readable"),
        (["numpy", "path=damaged.npy"], r"inputs.path=damaged.npy: .*readable"),
        (["numpy", "path=damaged.npz"], r"inputs.path=damaged.npz: .*readable"),
        (["numpy", "path=objects.npy"], r"objects.npy: .*without Python objects"),
        (["numpy", "path=five.npy"], r"x has the shape \(5,\); the function needs \(4,\)"),
        (["numpy", "path=nan.npy"], r"x holds 2 values that are not finite"),
        (["numpy", "path=complex.npy"], r"x is complex.*dtype=complex64"),
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


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        (["random", "count=0"], r"vectors.count=0: valid are integers from 1 on"),
        (["numpy", "path=nowhere.npy"], r"vectors.path=nowhere.npy: there is no such file"),
        (["numpy", "path=five.npy"], r"vectors: .*five|the source holds a single array"),
        (["numpy", "path=counts.npz"], r"same leading dimension.*\(2, 3\).*\(1,\)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_vectors_that_do_not_fit_are_reported(
    overrides: list[str], pattern: str, directory: Path, resolved: Resolve
) -> None:
    write_bad_files(directory)
    small = ("op=jvp", "function=gp_residual", "function.n=5", "function.inducing=3")
    with pytest.raises(JobError, match=pattern):
        resolved(*small, *options("vectors", overrides))


# The user's own function

JACOBIANS = {
    "square": torch.diag(torch.tensor([2.0, 4, 6])),
    "scalar": torch.tensor([3.0, 12, 27]),
    "with_default": torch.diag(torch.tensor([2.0, 4, 6])),
    "instance": torch.diag(torch.tensor([2.0, 4, 6])),
    "instance.method": torch.diag(torch.tensor([3.0, 12, 27])),
    "partial": torch.diag(torch.tensor([3.0, 12, 27])),
    "unnamed": torch.diag(torch.tensor([2.0, 4, 6])),
    "several": (torch.diag(torch.tensor([2.0, 4, 6])), torch.ones(3)),
    "named": (torch.diag(torch.tensor([3.0, 12, 27])), torch.ones(3)),
    "any_number": torch.ones(1, 3),
    "no_rows": torch.zeros(0, 3),
    "integers": torch.zeros(3, 3),
}


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
@pytest.mark.parametrize("name", JACOBIANS)
def test_a_callable_of_any_kind(name: str, strategy: str, own: Path, run_job: Run) -> None:
    result = run_job(*of(name), f"strategy={strategy}")
    given, expected = result.as_torch(), JACOBIANS[name]
    pairs = (
        [(given, expected)] if isinstance(expected, Tensor) else zip(given, expected, strict=True)
    )
    for part, other in pairs:
        assert torch.equal(part, other.double())


@pytest.mark.parametrize("name", ["several", "named", "both"])
@pytest.mark.parametrize("operation", ["vjp", "jvp"])
def test_products_of_several_outputs(operation: str, name: str, own: Path, run_job: Run) -> None:
    point = "points" if name == "both" else "point"
    result = run_job(*of(name, point), f"op={operation}", "strategy=vectorize", "vectors.count=2")
    matrix = run_job(*of(name, point))[...]
    vectors = np.concatenate([v.reshape(2, -1) for v in result.vectors.values()], axis=1)
    expected = vectors @ (matrix if operation == "vjp" else matrix.T)
    np.testing.assert_allclose(result[...], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("square", ["output"]),
        ("several", ["output0", "output1"]),
        ("named", ["z/b", "a c"]),
    ],
)
def test_outputs_have_names_in_the_file(
    name: str, rows: list[str], own: Path, run_job: Run
) -> None:
    result = run_job(*of(name))
    assert [tensor.name for tensor in result.rows] == list(result.value) == rows
    assert [tensor.name for tensor in result.columns] == list(result.points) == ["x"]
    assert result.function == f"own:{name}"
    for row in rows:
        assert result.block(row, "x").shape == (*result.value[row].shape, 3)


def test_arguments_have_names_and_their_own_order(own: Path, run_job: Run) -> None:
    result = run_job(*of("both", "points"))
    assert [tensor.name for tensor in result.columns] == ["x", "y"]
    assert result.points["y"].tolist() == [2, 2]
    np.testing.assert_array_equal(result.block("output0", "y"), 3 * np.eye(2))
    assert [t.name for t in run_job(*of("any_number", "points")).columns] == ["y", "x"]
    numbered = run_job(*of("any_number", None), "inputs=random", "inputs.shapes=[[2],[3]]")
    assert [tensor.name for tensor in numbered.columns] == ["input0", "input1"]


@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode"])
@pytest.mark.parametrize(("point", "shape"), [("zero_dim", ()), ("empty", (0,)), ("whole", (3,))])
def test_points_of_unusual_shape_and_type(
    point: str, shape: tuple[int, ...], strategy: str, own: Path, run_job: Run
) -> None:
    result = run_job(*of("square", point), f"strategy={strategy}")
    assert result.as_torch().shape == (*shape, *shape)
    again = run_job(*of("square", point), f"strategy={strategy}")
    assert again.complete


@pytest.mark.parametrize("strategy", ["vectorize", "forward-mode"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64", "complex128"])
def test_every_dtype(dtype: str, strategy: str, own: Path, run_job: Run) -> None:
    result = run_job(*of("square"), f"dtype={dtype}", f"strategy={strategy}")
    given = result.as_torch()
    assert given.dtype == getattr(torch, dtype)
    assert torch.equal(given, JACOBIANS["square"].to(given.dtype))


@pytest.mark.parametrize("operation", ["vjp", "jvp", "jacobian"])
@pytest.mark.parametrize(
    ("name", "dtype"), [("turned", "float64"), ("absolute", "complex128"), ("turned", "complex64")]
)
def test_real_and_complex_meet(
    operation: str, name: str, dtype: str, own: Path, resolved: Resolve, run_job: Run
) -> None:
    overrides = (*of(name), f"dtype={dtype}", f"op={operation}", "strategy=reverse-loop")
    job = resolved(*overrides)
    given = run_job(job).as_torch()
    if operation != "jacobian":
        vector = next(iter(job.vectors.values()))[0]
        function = getattr(torch.autograd.functional, operation)
        expected = function(job.function.function, job.inputs, vector)[1]
        assert vector.dtype == (
            job.function.function(job.inputs).dtype if operation == "vjp" else job.dtype
        )
        torch.testing.assert_close(given, expected)
    else:
        factor = 1 + 2j if name == "turned" else 2
        diagonal = factor * (torch.ones(3) if name == "turned" else torch.arange(3) + 1)
        torch.testing.assert_close(given, torch.diag(diagonal).to(given.dtype))


def test_entries_that_are_not_finite_are_kept(own: Path, run_job: Run) -> None:
    assert np.isinf(np.diag(run_job(*of("divided"))[...])).all()


@pytest.mark.parametrize(
    ("name", "point", "pattern"),
    [
        ("missing", "point", r"function.target=own:missing: there is no missing in .*own.py"),
        ("squar", "point", r"did you mean square\?"),
        ("not_callable", "point", r"of type int and cannot be called"),
        ("number", "point", r"number.*type float"),
        ("none", "point", r"none.*type NoneType"),
        ("nothing", "point", r"returns no tensors"),
        ("nested", "point", r"nested returns a value of type dict"),
        ("same_keys", "point", r"same as text: 1, 1"),
        ("raising", "point", r"own:raising: ValueError: no good$"),
        ("leaving", "point", r"own:leaving: SystemExit: 3$"),
        ("needs_keyword", "point", r"own:needs_keyword: .*keyword-only argument: 'power'"),
        ("square", None, r"inputs=default: square has no default point.*function.point="),
        ("square", "missing", r"function.point=own:missing: there is no missing"),
        ("square", "points", r"function.point=own:points gives y, x; the function takes x"),
        ("square", "failing_point", r"function.point=own:failing_point: .*RuntimeError: no point$"),
        ("square", "list_of_floats", r"input0 is of type float"),
        (
            "square",
            "unfinished",
            r"function.point=own:unfinished: x holds 1 values that are not finite",
        ),
        ("square", "complex_point", r"function.point=own:complex_point: x is complex.*complex64"),
    ],
)
@pytest.mark.parametrize("operation", ["jacobian", "vjp"])
def test_a_function_that_does_not_fit_is_reported(
    operation: str, name: str, point: str | None, pattern: str, own: Path, run_job: Run
) -> None:
    with pytest.raises(JobError, match=f"(?m){pattern}") as caught:
        run_job(*of(name, point), f"op={operation}", "strategy=reverse-loop")
    # The message includes the frames of the failure, and the file in which the point is saved.
    frames = {"raising": 3, "leaving": 3, "failing_point": 2}
    lines = 1 + frames.get(name, frames.get(str(point), 0))
    assert len(str(caught.value).splitlines()) == lines
    assert not list(own.glob("runs/**/*.h5*"))


@pytest.mark.parametrize("operation", ["hessian", "vhp", "hvp"])
def test_a_function_that_is_not_scalar_has_no_hessian(
    operation: str, own: Path, run_job: Run
) -> None:
    with pytest.raises(JobError, match=r"one tensor with one element|one element"):
        run_job(*of("square"), f"op={operation}", "strategy=vectorize")


@pytest.mark.parametrize(
    ("source", "target", "pattern"),
    [
        ("", "nowhere:f", r"there is no module nowhere; looked in "),
        ("", "user.deeper:f", r"there is no module user.deeper"),
        ("", "user", r"function.target=user: valid is an import path such as"),
        ("", ":f", r"function.target=:f: valid is an import path"),
        ("raise ImportError('boom')", "user:f", r"importing user failed with ImportError: boom"),
        ("1 / 0", "user:f", r"importing user failed with ZeroDivisionError"),
        ("def f(:", "user:f", r"importing user failed with SyntaxError"),
        ("import not_installed", "user:f", r"user itself imports not_installed"),
        ("raise SystemExit(4)", "user:f", r"importing user failed with SystemExit: 4"),
    ],
)
def test_a_module_that_cannot_be_imported(
    source: str, target: str, pattern: str, directory: Path, resolved: Resolve
) -> None:
    (directory / "user.py").write_text(source)
    with pytest.raises(JobError, match=pattern):
        resolved("op=jacobian", "function=python", f"'function.target={target}'".strip("'"))


# What the fingerprint depends on


def test_a_changed_source_is_another_job(directory: Path, resolved: Resolve) -> None:
    prints = set()
    for power in (2, 3):
        # The function's own file, reached through another.
        (directory / f"inner{power}").mkdir()
        (directory / "inner.py").write_text(f"def f(x):\n    return x ** {power}\n")
        (directory / "outer.py").write_text(
            "from inner import f\nfrom torch import ones\ndef p(): return ones(3)\n"
        )
        target = ("op=jacobian", "function=python", "function.target=outer:f")
        job = resolved(*target, "function.point=outer:p")
        assert {file.name for file in job.function.files} == {"inner.py", "outer.py"}
        prints.add(job.fingerprint)
        for name in ("inner", "outer"):
            del sys.modules[name]
    assert len(prints) == 2


@pytest.mark.parametrize(
    "other", ["chunk_size=1", "output.compression=gzip", "devices=cpu", "runs=elsewhere"]
)
def test_what_does_not_change_the_numbers_does_not_change_the_job(
    other: str, resolved: Resolve
) -> None:
    overrides = ("function=rosenbrock", "function.n=4")
    assert resolved(*overrides).fingerprint == resolved(*overrides, other).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        "op=jacobian",
        "strategy=vectorize",
        "function.n=5",
        "dtype=float32",
        "seed=1",
        "inputs=random",
    ],
)
def test_what_changes_the_numbers_changes_the_job(other: str, resolved: Resolve) -> None:
    overrides = ("function=rosenbrock", "function.n=4")
    assert resolved(*overrides).fingerprint != resolved(*overrides, other).fingerprint


def test_the_commit_is_that_of_the_users_code(own: Path, resolved: Resolve, quiet) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=n", "-c", "user.email=e@x")
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=own, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    from jobs.records.provenance import git_commit

    def found() -> str:
        with git_commit(job) as commit:
            return commit()

    job = resolved(*of("partial"))
    assert found() == ""
    git("init", "-q")
    git("add", "own.py")
    git("commit", "-qm", "first")
    (own / ".git/info/exclude").write_text("__pycache__\n")
    commit = git("rev-parse", "HEAD")
    assert found() == commit
    (own / "own.py").write_text(FUNCTIONS + "\n")
    assert found() == commit + "+"


def test_git_is_not_left_behind(
    own: Path, resolved: Resolve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.records.provenance import git_commit

    slow = tmp_path / "bin/git"
    slow.parent.mkdir()
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    slow.chmod(0o755)
    job = resolved(*of("partial"))
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")

    def body() -> None:
        with git_commit(job):
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                time.sleep(0.01)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_run_directory_is_named_by_the_job(own: Path, resolved: Resolve, quiet) -> None:
    job = resolved(*of("square"), "runs='it is \"mine\"'")
    path = execute(job, quiet)
    assert path == own / 'it is "mine"' / f"square-jacobian-auto-{job.fingerprint[:8]}/result.h5"
    assert path.is_file()
