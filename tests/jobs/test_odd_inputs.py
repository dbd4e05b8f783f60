"""Odd files, functions and options: each works, or ends in one sentence without a traceback."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from outputs import open_result

Run = Callable[..., Any]
# torch warns of nested tensors, of its scripts and of much else that is odd.
pytestmark = pytest.mark.filterwarnings("ignore")

OWN = """
import threading
import torch

def square(x): return x**2
def scaled(x, factor=3.0): return x**2 * factor
def large(x): return (200 * x).exp()
def sparse_output(x): return torch.diag(x).to_sparse()
def meta_output(x): return x.to("meta")
def of_itself(x): return of_itself(x)

class Silent(Exception):
    def __str__(self): raise RuntimeError("no text")

def silent(x): raise Silent

class Locked(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
    def forward(self, x): return x**2

class Callable:
    def __call__(self, x): return x**2
    def method(self, x): return x**2
    @classmethod
    def of_class(cls, x): return x**2

locked = Locked()
instance = Callable()
short = lambda x: x**2

@torch.no_grad()
def without_gradient(x): return x**2

sparse_point = torch.eye(3).to_sparse()
"""
SCRIPTS = """
import torch
script = torch.jit.script(torch.nn.Linear(3, 3))
traced = torch.jit.trace(lambda x: x**2, (torch.ones(3),))
"""
DEVICE = "import torch\ntorch.set_default_device('meta')\ndef f(x): return x**2\n"
NO_GRAD = "import torch\ntorch.set_grad_enabled(False)\ndef f(x): return x**2\n"
X = np.array([1.0, 2.0, 3.0])


def write_arrays(directory: Path) -> None:
    arrays: dict[str, Any] = {
        "x": X,
        "empty": np.zeros(0),
        "empty_matrix": np.zeros((0, 3)),
        "scalar": np.array(2.0),
        "truth": np.array([True, False]),
        "half": X.astype(np.float16),
        "big_endian": X.astype(">f8"),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "long": X.astype(np.longdouble),
        "unsigned": np.array([1, 2**63 + 5], np.uint64),
        "objects": np.array([1, None], object),
        "dates": np.array(["2020-01-01"], "datetime64[D]"),
        "words": np.array(["a", "b"]),
        "records": np.zeros(3, [("a", "f8")]),
        "undefined": np.array([1.0, np.nan]),
    }
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array, allow_pickle=True)
    for name in ("a b", "ünï", "a=b", "it's", "new\nline"):
        np.save(directory / f"{name}.npy", X)
    np.savez(directory / "surplus.npz", x=X, other=np.ones(2), objects=arrays["objects"])  # pyright: ignore
    np.savez(directory / "optional.npz", x=X, factor=np.array(2.0))
    (directory / "link.npy").symlink_to("x.npy")
    os.mkfifo(directory / "pipe.npy")
    os.mkfifo(directory / "pipe.npz")
    (directory / "latin.csv").write_bytes("größe\n1\n".encode("latin-1"))
    (directory / "twice.csv").write_text("x,x\n1,2\n")
    with h5py.File(directory / "data.h5", "w") as file:
        file["null_space"] = h5py.Empty("f8")
        file["loop"] = h5py.SoftLink("/loop")
        file["words"] = "hello"


def write_tensors(directory: Path) -> None:
    ones = torch.ones(3)
    tensors: dict[str, Tensor | dict[Any, Any]] = {
        "sparse": torch.eye(3).to_sparse(),
        "nested": torch.nested.nested_tensor([torch.ones(3), torch.ones(2)]),
        "without_data": torch.ones(3, device="meta"),
        "bits": torch.ones(3, dtype=torch.uint8).view(torch.bits8),
        "eight": torch.tensor([1.0, 2.0, 3.0]).to(torch.float8_e4m3fn),
        "parameter": torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0])),
        "same_text": {1: ones, "1": 2 * ones},
        "mixed": {"x": torch.tensor([1.0, 2.0, 3.0]), "epoch": 3},
    }
    for name, value in tensors.items():
        torch.save(value, directory / f"{name}.pt")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shared")
    (directory / "own.py").write_text(OWN)
    (directory / "scripts.py").write_text(SCRIPTS)
    (directory / "device.py").write_text(DEVICE)
    (directory / "no_grad.py").write_text(NO_GRAD)
    write_arrays(directory)
    write_tensors(directory)
    (directory / "bare.yaml").write_text("op: jacobian\n")
    (directory / "misspelt.yaml").write_text("defaults: [config, _self_]\nstratgy: vectorize\n")
    (directory / "broken.yaml").write_text("defaults: [config\nop: x\n")
    (directory / "circle.yaml").write_text("defaults: [config, circle]\n")
    return directory


@pytest.fixture
def files(shared: Path, directory: Path) -> Path:
    for each in shared.iterdir():
        (directory / each.name).symlink_to(each)
    (directory / "dangling.npy").symlink_to("nothing.npy")
    (directory / "folder.npy").mkdir()
    return directory


def numpy(path: str) -> tuple[str, ...]:
    return ("inputs=numpy", f"inputs.path={path}")


def tensors(name: str) -> tuple[str, ...]:
    return ("inputs=torch", f"inputs.path={name}.pt")


def dataset(name: str) -> tuple[str, ...]:
    return ("inputs=hdf5", "inputs.path=data.h5", f"inputs.datasets=[{name}]")


def function(name: str) -> tuple[str, ...]:
    return (f"function.target=own:{name}", *numpy("x.npy"))


SPECIAL = "a value with special characters is written in quotes within quotes, such as"
REFUSED = [
    (numpy("unsigned.npy"), "x (inputs.path=unsigned.npy) holds uint64, and functions are"),
    (numpy("truth.npy"), "x (inputs.path=truth.npy) holds bool, and functions are"),
    (numpy("objects.npy"), "without Python objects"),
    (numpy("dates.npy"), "x is of dtype datetime64[D]"),
    (numpy("words.npy"), "x is of dtype <U1"),
    (numpy("records.npy"), "valid are real and complex numbers"),
    (numpy("undefined.npy"), "x holds 1 values that are not finite"),
    (numpy("folder.npy"), "this is a directory"),
    (numpy("dangling.npy"), "a symbolic link to nothing.npy, which does not exist"),
    (numpy("pipe.npy"), "this is a pipe or a device"),
    (numpy("/dev/zero"), "this is a pipe or a device"),
    (numpy("y.npy"), "there is no such file"),
    (numpy("a=b.npy"), f"{SPECIAL} \"inputs.path='a=b.npy'\""),
    (numpy("it's.npy"), f"{SPECIAL} \"inputs.path='it\\\\'s.npy'\""),
    (("inputs=table", "inputs.path=latin.csv"), "names of the columns are not text in UTF-8"),
    (("inputs=table", "inputs.path=twice.csv"), "there are 2 columns x"),
    (dataset("null_space"), "/null_space has an impossible shape"),
    (dataset("loop"), "'loop' is a link to another place"),
    (dataset("words"), "/words holds neither numbers nor text"),
    (tensors("sparse"), "this tensor is sparse_coo; valid is what its method to_dense() returns"),
    (tensors("nested"), "this is a nested tensor"),
    (tensors("without_data"), "on the device meta, so it holds no numbers"),
    (tensors("bits"), "this is of dtype torch.bits8"),
    (tensors("same_text"), "two tensors have the same name as text"),
    (tensors("mixed"), "inputs.tensors=[...] selects the tensors"),
    (("function.point=own:sparse_point", "inputs=default"), "this tensor is sparse_coo"),
    (function("sparse_output"), "returns output: this tensor is sparse_coo"),
    (function("meta_output"), "returns output: this tensor is on the device meta"),
    (function("of_itself"), "RecursionError: maximum recursion depth exceeded"),
    (function("silent"), "function=own:silent: Silent"),
    (function("locked"), "the module cannot be copied (cannot pickle '_thread.lock' object)"),
    (("function.target=scripts:script", *numpy("x.npy")), "this is a module of torch.jit"),
    (("function.target=device:f", *numpy("x.npy")), "sets torch's default device to meta"),
    (("function.target=./x.npy:f", *numpy("x.npy")), "valid is a file that ends in .py"),
    (("sparsity=pipe.npz", *numpy("x.npy")), "this is a pipe or a device"),
    (("chunk_size='0'", *numpy("x.npy")), "chunk_size=0: valid are auto and integers"),
    (("~runs",), "runs: a value is needed"),
    (("seed=${seed}",), "Recursive interpolation"),
    (("inputs=random", "inputs.shapes=[[99999999999999]]"), "out of memory"),
    (("--config-dir=.", "--config-name=bare"), "does not build on the options of this program"),
    (("--config-dir=.", "--config-name=misspelt"), "did you mean strategy?"),
    (("--config-dir=.", "--config-name=broken"), "broken.yaml, line 2: this is not valid YAML"),
    (("--config-dir=.", "--config-name=circle"), "lead back to the file itself"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=lambda value: str(value)[-60:])
def test_it_ends_in_one_sentence(
    files: Path, command_line: Run, options: tuple[str, ...], message: str
) -> None:
    own = () if "--config-dir=." in options else ("op=jacobian", "function=python")
    target = () if "function.target" in str(options) or not own else ("function.target=own:square",)
    ended = command_line(*own, *target, *options)
    assert ended.code == 1
    assert message in ended.err
    assert "Traceback" not in ended.err + ended.out
    assert ended.err.count("error: ") == 1


COMPUTED = {
    "scalar": (numpy("scalar.npy"), [[4.0]]),
    "empty": (numpy("empty.npy"), np.zeros((0, 0))),
    "empty matrix": (numpy("empty_matrix.npy"), np.zeros((0, 0))),
    "argument with a default": (
        ("function.target=own:scaled", *numpy("optional.npz"), "wrt.pattern=x"),
        np.diag(4 * X),
    ),
    "Fortran order": (numpy("fortran.npy"), np.diag(np.arange(0.0, 12.0, 2.0))),
    "float8": (tensors("eight"), np.diag(2 * X)),
    "parameter": (tensors("parameter"), np.diag(2 * X)),
    "selected": ((*tensors("mixed"), "inputs.tensors=[x]"), np.diag(2 * X)),
    "quoted": (numpy("'a=b.npy'"), np.diag(2 * X)),
    "quote": (numpy("'it\\'s.npy'"), np.diag(2 * X)),
    "line break": (numpy("'new\nline.npy'"), np.diag(2 * X)),
    "unicode": (numpy("'ünï.npy'"), np.diag(2 * X)),
    "near overflow": (function("large"), np.diag(200 * np.exp(200 * X))),
    "import without gradients": (
        ("function.target=no_grad:f", *numpy("x.npy")),
        np.diag(2 * X),
    ),
    "traced": (("function.target=scripts:traced", *numpy("x.npy")), np.diag(2 * X)),
    "digits in quotes": (("chunk_size='2'", *numpy("x.npy")), np.diag(2 * X)),
    "chdir": (("hydra.job.chdir=true", *numpy("x.npy")), np.diag(2 * X)),
    **{
        name: (numpy(f"{name}.npy"), np.diag(2 * X))
        for name in ("half", "big_endian", "long", "link", "a b")
    },
    **{
        name: (function(name), np.diag(2 * X))
        for name in ("instance", "instance.method", "Callable.of_class", "short")
    },
}


@pytest.mark.parametrize("name", COMPUTED)
def test_it_is_computed(files: Path, command_line: Run, name: str) -> None:
    options, expected = COMPUTED[name]
    target = () if "function.target" in str(options) else ("function.target=own:square",)
    ended = command_line("op=jacobian", "function=python", *target, *options)
    assert ended.code == 0, ended.err
    assert ended.result.is_relative_to(files / "runs")
    with open_result(ended.result) as result:
        np.testing.assert_allclose(result[...], expected, rtol=1e-12)


def test_what_a_file_holds_besides_the_arguments_is_named(files: Path, command_line: Run) -> None:
    options = ("op=jacobian", "function=python", "function.target=own:square")
    ended = command_line(*options, *numpy("surplus.npz"))
    assert ended.code == 0, ended.err
    note = "inputs.path=surplus.npz also holds other, objects, which square does not take"
    assert f"note: {note}" in ended.out
    with open_result(ended.result) as result:
        assert result.execution["notes"] == [note]
    # Arrays that the user selects are all meant.
    refused = command_line(*options, *numpy("surplus.npz"), "inputs.arrays=[x,other]")
    assert "the source holds x, other; the function needs x" in refused.err


@pytest.mark.parametrize("quote", ["", "'"])
def test_the_home_directory_in_paths(
    files: Path, command_line: Run, monkeypatch: pytest.MonkeyPatch, quote: str
) -> None:
    monkeypatch.setenv("HOME", str(files / "folder.npy"))
    np.save(files / "folder.npy/x.npy", X)
    (files / "folder.npy/mine.py").write_text("def f(x): return x**2\n")
    given = {
        "function.target": "~/mine.py:f",
        "inputs.path": "~/x.npy",
        "runs": "~/results",
    }
    paths = [f"{option}={quote}{value}{quote}" for option, value in given.items()]
    ended = command_line("op=jacobian", "function=python", "inputs=numpy", *paths)
    assert ended.code == 0, ended.err
    assert ended.result.is_relative_to(files / "folder.npy/results")
    assert not (files / "~").exists()
