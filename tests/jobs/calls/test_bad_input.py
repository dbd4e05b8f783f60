"""What a call refuses: one error each, in the words of the command line, and nothing is written."""

import ctypes
import random
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

import jobs


def energy(positions: Tensor) -> Tensor:
    return ((positions[1:] - positions[:-1]).norm(dim=1) ** 2).sum()


class Doubling(TorchFunctionMode):
    """Changes what a function of torch returns."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Tensor:
        result = func(*args, **(kwargs or {}))
        return 2 * result if func is torch.Tensor.norm else result


class Bare:
    """Answers every attribute that it does not have with an error of its own."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"there is no {name}")

    def __call__(self, x: Tensor) -> Any:
        return None


def raises_in_a_circle(x: Tensor) -> Tensor:
    error = ValueError("this is its own cause")
    raise error from error


library = ctypes.CDLL(None)
made = np.frompyfunc(lambda x: 2 * x, 1, 1)

MISTAKES: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "option": (("hessian", energy), {"strategi": "auto"}, "did you mean strategy?"),
    "value": (("hessian", energy), {"strategy": "vectorise"}, "did you mean vectorize?"),
    "group": (("hessian", energy), {"wrt": "param"}, "did you mean params?"),
    "within a group": (("hessian", energy), {"output": {"dtyp": "float32"}}, "output.dtype?"),
    "type": (("hessian", energy), {"seed": "many"}, "seed=many: valid is an integer"),
    "no text": (("hessian", energy), {"runs": torch.ones(2)}, "runs: this is of type Tensor"),
    "operation": (("hesian", energy), {}, "did you mean hessian?"),
    "problem": (("hessian", "rosenbrok"), {}, "did you mean rosenbrock?"),
    "class": (("hessian", nn.Linear), {}, "function: this is a class"),
    "no callable": (("hessian", 3), {}, "function: this is of type int"),
    "generator object": (("hessian", (x for x in "ab")), {}, "function: this is of type generator"),
    "module of torch.jit": (("hessian", torch.jit.script(nn.Linear(3, 1))), {}, "of torch.jit"),
    "two points": (("hessian", energy), {"inputs": "random"}, "only one of them"),
    "plan": (("hessian", energy), {"plan": True}, "jobs.plan"),
    "cluster": (("hessian", energy), {"cluster": "slurm"}, "there is no option cluster"),
    "name": (("hessian", energy), {"name": "a/b"}, "valid are letters"),
    "name that is no text": (("hessian", energy), {"name": 3}, "valid are letters"),
    "shards": (("hessian", energy), {"shard": "9/4"}, "shard=9/4"),
    "devices": (("hessian", energy), {"devices": "gpu"}, "devices=gpu"),
    "vector valued": (("hessian", torch.sin), {}, "valid is one tensor with one element"),
    "no tensor": (("jacobian", lambda x: 3.0), {}, "neither a tensor nor a tuple"),
    "generator": (("jacobian", lambda x: (y for y in x)), {}, "neither a tensor nor a tuple"),
    "raises": (("jacobian", lambda x: x / [][0]), {}, "IndexError"),
    "changes": (("jacobian", lambda x: x * random.random()), {}, "different value on each call"),
    "circle": (("jacobian", raises_in_a_circle), {}, "this is its own cause"),
    "bare object": (("jacobian", Bare()), {}, "neither a tensor nor a tuple"),
    "library": (("jacobian", lambda x: x * library.abs(-1)), {}, "a library of ctypes"),
    "made ufunc": (("jacobian", lambda x: x * made(2.0)), {}, "global tests.jobs.calls"),
    "exits": (("jacobian", lambda x: sys.exit(3)), {}, "SystemExit"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_error_and_writes_nothing(
    mistake: str, positions: Tensor, directory: Path
) -> None:
    given, options, message = MISTAKES[mistake]
    compute: Any = jobs.compute
    with pytest.raises(jobs.JobError) as caught:
        compute(*given, positions, **options)
    assert message in str(caught.value)
    assert list(directory.iterdir()) == []


POINTS = {
    "not finite": (torch.tensor([1.0, float("nan")]), "values that are not finite"),
    "list of numbers": ([1.0, 2.0], "point[0]: this is of type float"),
    "number": (2.0, "point: this is of type float"),
    "generator": ((x for x in (1.0,)), "point: this is of type generator"),
    "text": (np.array(["a"]), "dtype <U1"),
    "objects": (np.array([None]), "dtype object"),
    "mask": (np.ma.masked_greater(np.arange(3.0), 1), "mask"),
    "sparse": (torch.eye(2).to_sparse(), "to_dense()"),
    "class": (torch.ones(2).as_subclass(type("Image", (Tensor,), {})), "of type Image"),
    "complex": (torch.ones(2, dtype=torch.complex64), "not holomorphic"),
    "key": ({1: torch.ones(2)}, "the key 1 is no text"),
    "too many": ((torch.ones(2), torch.ones(2)), "the function needs x"),
    "other names": ({"y": torch.ones(2), "z": torch.ones(2)}, "the function needs x"),
    "none": (None, "has no default point"),
}


@pytest.mark.parametrize("kind", POINTS)
def test_a_point_that_is_no_point(kind: str, directory: Path) -> None:
    point, message = POINTS[kind]

    def function(x: Tensor) -> Tensor:
        return (x**2).sum()

    with pytest.raises(jobs.JobError) as caught:
        jobs.compute("hessian", function, point)
    assert message in str(caught.value)
    assert list(directory.iterdir()) == []


def test_settings_that_change_the_function_are_refused(positions: Tensor) -> None:
    with torch.autocast("cpu"), pytest.raises(jobs.ConfigurationError, match="autocast"):
        jobs.compute("hessian", energy, positions)
    with torch.device("meta"), pytest.raises(jobs.ConfigurationError, match="default device"):
        jobs.compute("hessian", energy, positions)
    for mode in (Doubling(), FlopCounterMode(display=False)):
        with mode, pytest.raises(jobs.ConfigurationError, match=type(mode).__name__):
            jobs.compute("hessian", energy, positions)
    with pytest.raises(jobs.ConfigurationError, match=r"torch\.func"):
        torch.vmap(lambda x: jobs.compute("hessian", energy, positions))(torch.ones(1))
    with torch.device("cpu"):
        jobs.compute("hessian", energy, positions, progress="quiet").close()


def test_a_file_that_cannot_be_written_is_one_error(positions: Tensor, directory: Path) -> None:
    (directory / "file").write_text("")
    with pytest.raises(jobs.JobError, match="file"):
        jobs.compute("hessian", energy, positions, runs=directory / "file", progress="quiet")


def test_what_only_a_name_can_identify(compute: Any, positions: Tensor) -> None:
    lock = threading.Lock()

    def function(x: Tensor) -> Tensor:
        with lock:
            return (x**2).sum()

    with pytest.raises(jobs.ConfigurationError, match="closure variable lock") as caught:
        compute("hessian", function, positions)
    assert "name=" in str(caught.value)
    result = compute("hessian", function, positions, name="locked")
    assert result.path.parent.name.startswith("locked-hessian-")
    assert "not covered: closure variable lock" in result.configuration
    assert compute("hessian", function, positions, name="locked").path == result.path


@pytest.mark.parametrize("op", ["hessian", "ggn"])
def test_a_missing_label_is_one_of_the_loss(op: str, tmp_path: Path) -> None:
    def loss(output: Tensor) -> Tensor:
        return output.square().mean()

    wanted = r"the function needs input, and the loss needs label \(loss.label=label\)"
    with pytest.raises(jobs.JobError, match=wanted):
        jobs.compute(op, nn.Linear(2, 2), torch.ones(3, 2), wrt="params", loss=loss, runs=tmp_path)


def test_an_error_of_several_lines_says_what_its_first_line_announces(tmp_path: Path) -> None:
    def outside(x: Tensor) -> Tensor:
        try:
            raise ArithmeticError("the support ends at 0")
        except ArithmeticError as error:
            raise ValueError("at site 's':\n\n    found -1.06") from error

    with pytest.raises(jobs.JobError) as caught:
        jobs.compute("jacobian", outside, torch.ones(3), runs=tmp_path)
    text = str(caught.value)
    assert "ValueError: at site 's': found -1.06\n" in text
    assert "\ncaused by ArithmeticError: the support ends at 0" in text


def test_what_to_do_about_a_contradiction_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(x: Tensor) -> Tensor:
        return x.detach() * x

    with pytest.raises(jobs.JobError, match="autograd does not see all"):
        jobs.compute("jacobian", stopped, torch.ones(3), runs=tmp_path, progress="quiet")
    shown = capsys.readouterr().err
    assert shown.startswith("contradicted: function=stopped: along a random direction")
    assert "autograd does not see all" not in shown
