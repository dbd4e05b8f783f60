"""Invalid commands: each ends with one message, without a traceback of ours, and loses nothing."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

Run = Callable[..., Any]
JACOBIAN = ("op=jacobian",)
MLP = (*JACOBIAN, "function=mlp", "function.n=4")
OWN = (*JACOBIAN, "function=python")
FILE = (*MLP, "inputs=numpy")

USER = """
import torch
from torch import nn

p = torch.ones(3)
unfinished = torch.tensor([1.0, float("nan"), 3.0])

def vector(x): return x**2
def scalar(x): return (x**2).sum()
def keyword(x, *, power): return x**power
def two(x, y): return x * y
def text(x): return "text"
def raising(x): raise ValueError("no good")
def leaving(x): raise SystemExit(0)
def dividing(x): return inner(x)
def inner(x): return 1 / 0
def shapes(x): return torch.ones(4) @ x
def later(x): return Later.apply(x)
def nan(x): return x / 0

class NoForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, g):
        return g

class Later(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, g):
        raise KeyError("not now")

def no_forward(x): return NoForward.apply(x)

class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.linear = nn.Linear(width, 2)
    def forward(self, x):
        return self.linear(x)
"""


def own(name: str, *more: str) -> tuple[str, ...]:
    return (*OWN, f"function.target=user:{name}", "function.point=user:p", *more)


# By kind: the arguments, and a part of the message.
MISTAKES: list[tuple[tuple[str, ...], str]] = [
    # Names
    (
        ("op=hesian",),
        "op=hesian: valid are jacobian, hessian, ggn, fisher, vjp, jvp, vhp, hvp; did you mean",
    ),
    (("stategy=vectorize",), "there is no option stategy; valid are op, strategy"),
    (("strategy=forward-mod",), "did you mean forward-mode?"),
    (("functon=mlp",), "did you mean function?"),
    (("function=rosenbrok",), "did you mean rosenbrock?"),
    (("function.size=3",), "there is no option function.size"),
    (("+foo=1",), "there is no option foo"),
    (("~foo",), "there is no option foo"),
    (("hydra/launcher=slurm",), "hydra/launcher"),
    (("hydra.run.dirr=x",), "hydra.run.dirr"),
    (("--config-name=nowhere",), "nowhere"),
    (("function.name=mlp2",), "function.name=mlp2: this is not set by itself"),
    ((*MLP, "inputs=nmpy"), "did you mean numpy?"),
    # Arguments that are no options
    (("foo",), "option=value"),
    (("=3",), "=3: valid is option=value"),
    (("=",), "=: valid is option=value"),
    (("",), "an empty argument: valid is option=value"),
    (("@x=3",), "@x=3: valid is option=value"),
    (("op=[",), "op=[: valid is option=value"),
    (("inputs=numpy inputs.path=a=b",), "inputs"),
    (("op=jacobian,hessian",), "--multirun"),
    (("function=[mlp,rosenbrock]",), "function: one choice is needed, and not several"),
    # Values
    (("function.n=many",), "function.n=many: valid is an integer"),
    (("function.n=0", *JACOBIAN, "function=mlp"), "function.n=0"),
    (("chunk_size=0",), "chunk_size=0"),
    (("memory=lots",), "memory=lots: valid are auto and a size such as 8GiB"),
    (("memory=0GB",), "memory=0GB"),
    (("seed=1e3",), "seed=1000.0: valid is an integer"),
    (("op.x=3",), "op: valid is a single value"),
    (("inputs=random", "inputs.shapes.x=3"), "inputs.shapes.x=3: there is nothing of that name"),
    (("plan=perhaps",), "plan=perhaps: valid are true and false"),
    (("progress=loud",), "progress=loud: valid are auto, lines, quiet, json"),
    ((*MLP, "output.tile=[0,1]"), "output.tile=[0, 1]"),
    ((*MLP, "inputs=constants", "inputs.values=3"), "inputs.values: valid is a mapping, in braces"),
    # Options that do not fit together
    (("op=vjp", "strategy=forward-mode"), "has no meaning"),
    (("op=hessian", "function=mlp"), "a Hessian needs a scalar function"),
    ((*MLP, "wrt=params"), "mlp is not a torch.nn.Module"),
    ((*MLP, "loss=mse"), "a loss is for function=python"),
    # Dtypes and devices
    (("dtype=float65",), "dtype=float65: valid are"),
    (("devices=cuda:99",), "there is no such device"),
    (("devices=gpu",), "devices=gpu: there is no such device here; valid here are auto, cpu"),
    ((*FILE, "inputs.path=complex.npy"), "must have the same dtype, but got ComplexDouble"),
    ((*FILE, "inputs.path=text.npy"), "text.npy: x is of dtype <U1; valid are real and complex"),
    # Paths
    ((*FILE, "inputs.path=nowhere.npy"), "there is no such file; looked for "),
    ((*FILE, "inputs.path=user.py"), "user.py: this is not a readable .npy or .npz file"),
    ((*FILE, "inputs.path=objects.npy"), "without Python objects"),
    ((*MLP, "inputs=hdf5", "inputs.path=a.h5", "inputs.datasets=[/y]"), "/y: valid are /x"),
    ((*MLP, "runs=a_file"), "a_file"),
    ((*MLP, "runs=a_file/below"), "a_file"),
    ((*MLP, "runs=/proc/nowhere"), "/proc/nowhere"),
    # Shapes and numbers of inputs
    ((*FILE, "inputs.path=five.npy"), "x has the shape (5,); the function needs (4,)"),
    ((*FILE, "inputs.path=nan.npy"), "nan.npy: x holds 1 values that are not finite"),
    ((*FILE, "inputs.path=five.npy", "inputs.slice=7"), "there is not an index 7 in dimension 0"),
    (("op=vjp", "strategy=vectorize", *MLP[1:], "vectors.count=0"), "vectors.count=0"),
    (
        ("op=vjp", "strategy=vectorize", *MLP[1:], "vectors=numpy", "vectors.path=five.npy"),
        "five.npy: y has the shape (5,); the function needs (5, 4)",
    ),
    # The user's own function
    (OWN, "function.target: a value is needed"),
    ((*OWN, "function.target=user"), "valid is an import path"),
    ((*OWN, "function.target=nowhere:f"), "there is no module nowhere"),
    ((*OWN, "function.target=./usr.py:vector"), "there is no such file; looked for "),
    ((*OWN, "function.target=user:vectr"), "did you mean vector?"),
    ((*OWN, "function.target=user:vector"), "has no default point"),
    ((*OWN, "function.target=user:p"), "of type Tensor and cannot be called"),
    (own("keyword"), "the function needs x, power"),
    (own("two"), "function.point=user:p"),
    (own("text"), "text returns a value of type str that is neither"),
    ((*OWN, "function.target=user:vector", "function.point=user:unfinished"), "1 values that are"),
    (("op=hessian", *own("vector")[1:]), "one element"),
    (("strategy=forward-mode", *own("no_forward")), "defines no jvp"),
    (own("raising"), "user:raising: ValueError: no good"),
    (own("leaving"), "user:leaving: SystemExit: 0"),
    (own("dividing"), "user:dividing: ZeroDivisionError: division by zero"),
    (own("shapes"), "user:shapes: RuntimeError: "),
    (own("later", "strategy=vectorize"), "user:later: KeyError: 'not now'"),
    (own("nan", "nonfinite=fail"), "entries that are not finite"),
    # Modules
    ((*own("Net"), "function.keywords.widht=3"), "unexpected keyword argument 'widht'"),
    ((*own("Net"), "function.weights=nowhere.pt"), "function.weights=nowhere.pt: there is no such"),
    (
        (*own("Net"), "function.weights=wrong.safetensors"),
        "has no linear.weight, linear.bias and has other",
    ),
    ((*own("Net"), "wrt=params", "wrt.pattern=lin.*"), "no parameter has such a name; there are"),
    ((*own("vector"), "function.weights=wrong.safetensors"), "weights are for a torch.nn.Module"),
]
# Functions in which the user's code raises, and the frames that the message shows.
FRAMES = {
    "raising": ["raising"],
    "leaving": ["leaving"],
    "dividing": ["dividing", "inner"],
    "shapes": ["shapes"],
    "later": ["backward"],
}


def write_files(directory: Path) -> None:
    (directory / "user.py").write_text(USER)
    (directory / "a_file").write_text("mine")
    np.save(directory / "five.npy", np.ones(5))
    np.save(directory / "nan.npy", np.array([1, np.nan, 3, 4]))
    np.save(directory / "complex.npy", np.ones(4, complex))
    np.save(directory / "text.npy", np.array(["a", "b", "c", "d"]))
    np.save(directory / "objects.npy", np.array([{}, 1, 2, 3]), allow_pickle=True)
    save_file({"other": torch.ones(3)}, directory / "wrong.safetensors")
    with h5py.File(directory / "a.h5", "w") as file:
        file["x"] = np.ones(4)
    # Files of earlier jobs: a result, and an unfinished result.
    earlier = directory / "runs/mlp-jacobian-vectorize-01234567"
    earlier.mkdir(parents=True)
    (earlier / "result.h5").write_bytes(os.urandom(100))
    (earlier / "other.h5.part").write_bytes(os.urandom(100))


def digests(directory: Path) -> dict[Path, str]:
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_there_are_many_mistakes() -> None:
    assert len(MISTAKES) >= 40
    assert len({arguments for arguments, _ in MISTAKES}) == len(MISTAKES)


@pytest.mark.parametrize(
    ("arguments", "part"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES]
)
def test_a_mistake_ends_in_one_message_and_nothing_is_lost(
    arguments: tuple[str, ...], part: str, command_line: Run, directory: Path
) -> None:
    write_files(directory)
    before = digests(directory)
    ended = command_line(*arguments)
    assert ended.code == 1
    message, *rest = ended.err.splitlines()
    hints = ("was asked for and is not replaced", "the point is float64, as dtype= says")
    rest = [line for line in rest if not any(each in line for each in hints)]
    assert message.startswith("error: ")
    assert part in message
    assert ended.err.count("error: ") == 1
    assert "Traceback" not in ended.out + ended.err
    name = next((a.rpartition(":")[2] for a in arguments if "target=user:" in a), "")
    frames = FRAMES.get(name, [])
    assert [line.rpartition(" in ")[2] for line in rest if line.startswith("  File ")] == frames
    assert len(rest) == (2 * len(frames) + 1 if frames else 0)
    for line in rest[: 2 * len(frames) : 2]:
        assert line.startswith(f'  File "{directory / "user.py"}", line ')
    if frames:
        with np.load(rest[-1].removeprefix("the point is kept in ")) as point:
            assert point["x"].tolist() == [1, 1, 1]
    after = digests(directory)
    assert {path: after.get(path) for path in before} == before
    assert not [path for path in after.keys() - before.keys() if ".h5" in path.name]


def test_a_kept_point_can_be_read_again(command_line: Run, directory: Path) -> None:
    write_files(directory)
    ended = command_line(*own("raising"))
    kept = ended.err.splitlines()[-1].removeprefix("the point is kept in ")
    target = ("function=python", "function.target=user:vector")
    again = command_line(*JACOBIAN, *target, "inputs=numpy", f"inputs.path={kept}")
    assert again.code == 0, again.err
