"""Losses and their curvature matrices at each of many points, against `torch.func`."""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacrev

from jobs.errors import JobError
from outputs import Result, VerificationState, open_result, part_path, verify_result
from outputs.merge import main as merge
from tests.support.processes import committed, start_job, wait_for

POINTS = 11
MODEL = """
import os, time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))

class Branch(Net):  # resists being batched
    def forward(self, x):
        z = super().forward(x)
        return z.sin() if float(z.detach().sum()) > 0 else z

class Slow(Net):
    def forward(self, x):
        time.sleep(float(os.environ.get("SECONDS", "0")))
        return super().forward(x.clone() if float(x.detach().sum()) else x)

class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, x):
        ctx.save_for_backward(x)
        return z.clone()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        factor = 1.1 if 7 < float(x.detach().sum()) else 1.0
        return grad * factor, None

class WrongAtOne(Net):
    def forward(self, x):
        return Wrong.apply(super().forward(x), x)

def huber(output, label): return torch.sqrt(1 + (output - label)**2).sum()
def absolute(output, label): return (output - label).abs().sum()
def kinked(output, label):  # without curvature beyond 0
    return torch.where(label > 0, output - label, (output - label) ** 2).sum()

def own_loss(x, y): return ((x.sin() * y) ** 2).sum()
def of_theta(theta, data): return torch.tanh(data @ theta)
"""
Run = Callable[..., Result]
Command = Callable[..., Any]


@pytest.fixture
def arrays(directory: Path) -> dict[str, Tensor]:
    (directory / "own.py").write_text(MODEL)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(POINTS, 4, generator=generator, dtype=torch.float64)
    y = torch.randn(POINTS, 3, generator=generator, dtype=torch.float64)
    label = torch.arange(POINTS) % 3
    np.savez("numbers.npz", x=x, label=y)
    np.savez("classes.npz", x=x, label=label)
    return {"x": x, "y": y, "label": label}


def options(name: str, *more: str) -> tuple[str, ...]:
    return ("function=python", f"function.target=./own.py:{name}", "inputs=numpy", *more)


def of_classes(*more: str) -> tuple[str, ...]:
    batched = ("points=leading", "points.batched=true", "inputs.path=classes.npz")
    return options("Net", *batched, "loss=cross_entropy", *more)


def of_numbers(name: str, *more: str) -> tuple[str, ...]:
    return options(name, "points=leading", "inputs.path=numbers.npz", "loss=mse", *more)


def network(name: str = "Net") -> torch.nn.Module:
    space: dict[str, Any] = {}
    exec(MODEL, space)
    return space[name]().double().requires_grad_(False)


def matrix(op: str, net: Callable[..., Tensor], loss: Callable[..., Tensor], x: Tensor) -> Tensor:
    """Return the matrix at one point by explicit Jacobians and Hessians."""
    if op == "hessian":
        return hessian(lambda x: loss(net(x)))(x)
    if op == "jacobian":
        return jacrev(lambda x: loss(net(x)))(x)[None]
    if op == "fisher":
        gradient = jacrev(lambda x: loss(net(x)))(x)
        return torch.outer(gradient, gradient)
    jacobian = jacrev(net)(x)
    return jacobian.T @ hessian(loss)(net(x)) @ jacobian


def cross_entropy(label: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda z: torch.nn.functional.cross_entropy(z[None], label[None])


def mse(label: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda z: (z - label).square().mean()


@pytest.mark.parametrize(
    ("op", "strategy", "chunk_size"),
    [
        ("ggn", "reverse-loop", 3),
        ("ggn", "vectorize", 9),
        ("ggn", "forward-mode", "auto"),
        ("ggn", "forward-loop", 9),
        ("fisher", "auto", "auto"),
        ("fisher", "forward-mode", 3),
        ("hessian", "vectorize", 9),
        ("hessian", "forward-mode", 3),
        ("jacobian", "auto", "auto"),
        ("jacobian", "forward-mode", 3),
    ],
)
def test_matrices_are_those_of_each_point(
    op: str, strategy: str, chunk_size: object, arrays: dict[str, Tensor], run_job: Run
) -> None:
    given = (f"op={op}", f"strategy={strategy}", f"chunk_size={chunk_size}")
    result = run_job(*of_classes(*given))
    net, rows = network(), 1 if op == "jacobian" else 4
    assert result.shape == (POINTS, rows, 4)
    for number, (x, label) in enumerate(zip(arrays["x"], arrays["label"], strict=True)):
        expected = matrix(op, net, cross_entropy(label), x)
        np.testing.assert_allclose(result[number], expected, rtol=1e-11, atol=1e-14)
        value = cross_entropy(label)(net(x))
        np.testing.assert_allclose(result.value["output"][number], value)
    assert result.verdict.state is VerificationState.VERIFIED
    assert verify_result(result.path).problems == ()
    if op in ("ggn", "fisher"):
        assert result.execution["verification"]["smallest_rayleigh_quotient"] >= 0


@pytest.mark.parametrize("op", ["ggn", "hessian"])
def test_outputs_that_resist_being_batched(
    op: str, arrays: dict[str, Tensor], run_job: Run
) -> None:
    result = run_job(*of_numbers("Branch", f"op={op}", "strategy=vectorize", "chunk_size=8"))
    net, taken = network(), set()
    for number, (x, y) in enumerate(zip(arrays["x"], arrays["y"], strict=True)):
        taken.add(float(net(x).sum()) > 0)
        outputs = (lambda x: net(x).sin()) if float(net(x).sum()) > 0 else net
        np.testing.assert_allclose(result[number], matrix(op, outputs, mse(y), x), atol=1e-13)
    assert len(taken) == 2
    assert result.verdict.state is VerificationState.VERIFIED
    assert any("one point at a time" in each for each in result.execution["fallbacks"])


def test_the_true_fisher_matrix_does_not_depend_on_the_labels(
    arrays: dict[str, Tensor], run_job: Run
) -> None:
    result = run_job(*of_classes("op=fisher", "fisher.kind=true"))
    net = network()
    for number, x in enumerate(arrays["x"]):
        jacobian, p = jacrev(net)(x), torch.softmax(net(x), 0)
        expected = jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
        np.testing.assert_allclose(result[number], expected, rtol=1e-11, atol=1e-15)


def test_losses_of_your_own(arrays: dict[str, Tensor], run_job: Run) -> None:
    huber = ("loss=python", "loss.target=./own.py:huber")
    result = run_job(*of_numbers("Net", "op=ggn", *huber))
    for number, (x, y) in enumerate(zip(arrays["x"], arrays["y"], strict=True)):
        expected = matrix("ggn", network(), lambda z, y=y: torch.sqrt(1 + (z - y) ** 2).sum(), x)
        np.testing.assert_allclose(result[number], expected, rtol=1e-11)
    np.savez("own.npz", x=arrays["x"], y=arrays["x"] + 1)
    own = ("inputs.path=own.npz", "points=leading", "points.batched=true", "loss=own")
    result = run_job(*options("own_loss", *own, "op=fisher", "wrt.pattern=x"))
    for number, x in enumerate(arrays["x"]):
        g = jacrev(lambda v, x=x: ((v.sin() * (x + 1)) ** 2).sum())(x)
        np.testing.assert_allclose(result[number], torch.outer(g, g), rtol=1e-11)


def test_a_model_of_parameters_at_many_parameter_vectors(
    arrays: dict[str, Tensor], run_job: Run
) -> None:
    theta, data = torch.randn(5, 4, 2).double(), torch.randn(7, 4).double()
    label = torch.randn(7, 2).double()
    for number in range(5):
        np.savez(f"theta{number}.npz", theta=theta[number], data=data, label=label)
    given = ("inputs.path=theta*.npz", "points=files", "wrt.pattern=theta", "loss=mse")
    for op in ("ggn", "fisher"):
        result = run_job(*options("of_theta", *given, f"op={op}", "loss.reduction=sum"))
        for number, each in enumerate(theta):
            jacobian = jacrev(lambda t: torch.tanh(data @ t))(each).reshape(14, 8)
            if op == "ggn":
                expected = 2 * jacobian.T @ jacobian
            else:
                of_z = 2 * (torch.tanh(data @ each) - label)
                g = torch.einsum("ns,nsi->ni", of_z, jacobian.reshape(7, 2, 8))
                expected = g.T @ g
            np.testing.assert_allclose(result[number], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("op", "strategy"),
    [("ggn", "vectorize"), ("ggn", "forward-mode"), ("fisher", "auto"), ("hessian", "vectorize")],
)
def test_points_of_different_sizes(
    op: str, strategy: str, arrays: dict[str, Tensor], run_job: Run
) -> None:
    sizes = [2, 1, 4]
    x, label, ends = arrays["x"][:7], arrays["label"][:7], [0, 2, 3, 7]
    np.savez("parts.npz", x=x, label=label)
    for number, (start, stop) in enumerate(pairwise(ends)):
        np.savez(f"part{number}.npz", x=x[start:stop], label=label[start:stop])
    given = ("loss=cross_entropy", f"op={op}", f"strategy={strategy}", "chunk_size=6")
    by_files = run_job(*options("Net", "inputs.path=part?.npz", "points=files", *given))
    offsets = ("points=offsets", "points.offsets=[0,2,3,7]", "inputs.path=parts.npz")
    by_offsets = run_job(*options("Net", *offsets, *given))
    for number, size in enumerate(sizes):
        part, plain = slice(ends[number], ends[number + 1]), network()

        def net(flat: Tensor, size: int = size, plain: Any = plain) -> Tensor:
            return plain(flat.reshape(size, 4))

        def losses(z: Tensor, label: Tensor = label[part]) -> Tensor:
            return torch.nn.functional.cross_entropy(z, label, reduction="none")

        flat = x[part].reshape(-1)
        if op == "fisher":
            g = jacrev(lambda v, net=net, losses=losses: losses(net(v)))(flat)
            expected = g.T @ g / size
        elif op == "hessian":
            expected = hessian(lambda v, net=net, losses=losses: losses(net(v)).mean())(flat)
        else:
            z = net(flat)
            of_loss = hessian(lambda z, losses=losses: losses(z).mean())(z)
            jacobian = jacrev(net)(flat).reshape(z.numel(), -1)
            expected = jacobian.T @ of_loss.reshape(z.numel(), -1) @ jacobian
        for result in (by_files, by_offsets):
            np.testing.assert_allclose(result.point(number)[:], expected, rtol=1e-10, atol=1e-14)
    for result in (by_files, by_offsets):
        assert result.verdict.state is VerificationState.VERIFIED
        if op != "hessian":
            assert result.execution["verification"]["smallest_rayleigh_quotient"] >= -1e-15


@pytest.mark.parametrize(
    ("op", "by"),
    [("ggn", "leading"), ("ggn", "files"), ("fisher", "leading"), ("hessian", "leading")],
)
def test_a_wrong_derivative_at_one_point_is_found(
    op: str, by: str, arrays: dict[str, Tensor], run_job: Run
) -> None:
    x = arrays["x"].clone()
    x[6] = torch.tensor([2.0, 2.5, 1.5, 3.0])
    np.savez("numbers.npz", x=x, label=arrays["y"])
    given = ["loss=mse", f"op={op}", "strategy=vectorize"]
    if by == "files":
        for number in range(4):
            lines = slice(number, number + 1 + number % 2) if number else slice(5, 7)
            np.savez(f"p{number}.npz", x=x[lines], label=arrays["y"][lines])
        given += ["points=files", "inputs.path=p?.npz"]
    else:
        given += ["points=leading", "inputs.path=numbers.npz"]
    # A Hessian is refused before it is computed.
    with pytest.raises(JobError, match=r"is contradicted|not the derivative of its forward"):
        run_job(*options("WrongAtOne", *given))


def test_a_killed_job_resumes_to_the_same_bytes(
    arrays: dict[str, Tensor], command_line: Command, directory: Path
) -> None:
    given = of_numbers("Slow", "op=ggn", "strategy=reverse-loop", "chunk_size=4", "verify=off")
    process = start_job(*given, SECONDS="0.02")
    wait_for(lambda: committed(directory) > 2, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 2 < committed(directory) < POINTS
    killed = command_line(*given)
    whole = command_line(*given, "runs=whole")
    assert (killed.code, whole.code) == (0, 0)
    with open_result(whole.result) as first, open_result(killed.result) as second:
        assert not part_path(killed.result).exists()
        assert np.array_equal(first[...], second[...])


def test_shards_are_merged(arrays: dict[str, Tensor], command_line: Command, run_job: Run) -> None:
    given = of_classes("op=ggn", "strategy=vectorize")
    finished = command_line("--multirun", *given, "shards=2", "shard=range(2)", "runs=parts")
    assert finished.code == 0, finished.err
    assert merge([*map(str, Path("parts").rglob("*.h5")), "-o", "merged.h5"]) == 0
    whole = run_job(*given)
    with open_result("merged.h5") as merged:
        np.testing.assert_allclose(merged[...], whole[...], rtol=1e-12)
        quotient = merged.execution["verification"]["smallest_rayleigh_quotient"]
    assert quotient == whole.execution["verification"]["smallest_rayleigh_quotient"] > 0


def test_a_loss_without_curvature_at_some_points(arrays: dict[str, Tensor], run_job: Run) -> None:
    absolute = ("loss=python", "loss.target=./own.py:absolute", "op=ggn")
    with pytest.raises(JobError, match="no curvature at these outputs"):
        run_job(*of_numbers("Net", *absolute))
    label = torch.ones(POINTS, 3).double()
    label[5] = -1
    np.savez("numbers.npz", x=arrays["x"], label=label)
    result = run_job(*of_numbers("Net", "loss=python", "loss.target=./own.py:kinked", "op=ggn"))
    assert [bool(result[n].any()) for n in range(POINTS)] == [n == 5 for n in range(POINTS)]
    assert result.execution["verification"]["smallest_rayleigh_quotient"] == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["loss.batch_size=2"], "loss.batch_size=2 points=leading: the data of a point"),
        (
            ["wrt=params", "points.batched=false"],
            "wrt=params: many points .* one set of parameters only",
        ),
        (["function.data=./own.py:Net"], "each has its own data"),
        (["points.batched=true", "points=single"], "points.batched=true .* leading dimension is"),
        (["inputs.path=wrong.npz"], "the labels go from 7 to 7"),
        (["sparsity=auto"], "sparsity=auto op=ggn"),
    ],
)
def test_what_does_not_fit_is_refused(
    more: list[str], message: str, arrays: dict[str, Tensor], run_job: Run
) -> None:
    np.savez("wrong.npz", x=arrays["x"], label=arrays["label"] * 7 % 8)
    given = {each.partition("=")[0]: each for each in of_classes("op=ggn", *more)}
    with pytest.raises(JobError, match=message):
        run_job(*given.values())
