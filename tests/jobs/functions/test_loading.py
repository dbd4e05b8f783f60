"""The user's functions and modules: by path or file, with arguments, weights and losses."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.func import functional_call

from jobs.errors import JobError
from jobs.functions.batch_sum import BatchSum
from jobs.job import Job
from outputs import Result

Resolve = Callable[..., Job]
Run = Callable[..., Result]

MODEL = """
import functools
from dataclasses import dataclass

import torch
from torch import nn

import helper

@dataclass
class Spring:
    stiffness: float = 1.0

def energy(x, stiffness=1.0, spring=None):
    return (spring or Spring(stiffness)).stiffness * helper.half(x.square().sum())

def make(stiffness, power=2):
    return lambda x: stiffness * x**power

class Net(nn.Module):
    def __init__(self, inputs=3, width=4, outputs=2):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, width), nn.Tanh())
        self.head = nn.Linear(width, outputs)
        self.register_buffer("shift", torch.arange(float(inputs)))

    def forward(self, x):
        return self.head(self.encoder(x + self.shift))

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))

class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(self.linear(x))

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5)

    def forward(self, tokens):
        return self.out(self.table(tokens).mean(1))

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.bilinear = nn.Bilinear(3, 2, 2)

    def forward(self, left, right):
        return self.bilinear(left, right)

def frozen():
    net = Net()
    net.encoder.requires_grad_(False)
    return net

torch.manual_seed(1)
net = Net()
def huber(output, label): return torch.sqrt(1 + (output - label)**2).sum()
def own_loss(theta, x, y): return ((x @ theta - y) ** 2).mean()
point = torch.arange(3.0) + 1
"""


@pytest.fixture
def model(directory: Path) -> Path:
    """Write the user's file `code/model.py`, which imports a file beside it."""
    (directory / "code").mkdir()
    (directory / "code/helper.py").write_text("def half(x): return x / 2\n")
    (directory / "code/model.py").write_text(MODEL)
    return directory


def of(name: str, *more: str) -> list[str]:
    return ["function=python", f"function.target=code/model.py:{name}", *more]


POINT = "function.point=code/model.py:point"
VALUES = ("inputs=constants", "inputs.values.x=[1.0,2,3]")


def user(job: Job) -> Any:
    """Return the user's module, as it was imported from the file."""
    (name,) = (name for name in sys.modules if name.startswith("model_"))
    return sys.modules[name]


# By file, with arguments


@pytest.mark.parametrize(
    ("target", "hessian"),
    [
        (of("energy"), 1.0),
        (of("energy", "function.keywords.stiffness=3"), 3.0),
        (of("energy", "function.keywords.spring={_target_: code/model.py:Spring,stiffness: 4}"), 4),
        (
            ["function=python", "function.target={_target_: code/model.py:energy,_partial_: true}"],
            1,
        ),
        (
            [
                "function=python",
                "function.target={_target_: code/model.py:energy,_partial_: true,stiffness: 5}",
            ],
            5,
        ),
    ],
    ids=["plain", "keyword", "nested target", "target", "target with arguments"],
)
def test_a_function_by_file_with_arguments(
    target: list[str], hessian: float, model: Path, command_line: Any
) -> None:
    ended = command_line("op=hessian", *target, *VALUES)
    assert ended.code == 0, ended.err
    with Result(ended.result) as result:
        np.testing.assert_array_equal(result[...], hessian * np.eye(3))
        assert result.function.startswith("code/model.py:energy")
    assert ended.result.parent.name.startswith("energy-hessian-")


def test_a_factory_returns_the_function(model: Path, command_line: Any) -> None:
    factory = ("function.factory=true", "function.keywords.stiffness=2")
    ended = command_line("op=jacobian", *of("make", *factory), *VALUES)
    assert ended.code == 0, ended.err
    with Result(ended.result) as result:
        np.testing.assert_array_equal(result[...], np.diag([4.0, 8, 12]))


def test_options_in_a_file_of_ones_own(model: Path, command_line: Any) -> None:
    (model / "mine/function").mkdir(parents=True)
    (model / "mine/function/cubic.yaml").write_text(
        "defaults: [python, _self_]\ntarget: code/model.py:make\nfactory: true\n"
        "keywords: {stiffness: 2, power: 3}\n"
    )
    ended = command_line("--config-dir", "mine", "op=jacobian", "function=cubic", *VALUES)
    assert ended.code == 0, ended.err
    with Result(ended.result) as result:
        np.testing.assert_array_equal(result[...], np.diag([6.0, 24, 54]))


def test_arguments_are_part_of_the_job(model: Path, resolved: Resolve) -> None:
    prints = {
        resolved("op=hessian", *of("energy", POINT), *more).fingerprint
        for more in ([], ["function.keywords.stiffness=2"], ["function.keywords.stiffness=3"])
    }
    assert len(prints) == 3


# Modules


def reference(module: torch.nn.Module, x: torch.Tensor, names: list[str]) -> torch.Tensor:
    """Return the Jacobian with respect to parameters by torch itself, (outputs, parameters)."""
    parameters = dict(module.named_parameters())

    def function(*values: torch.Tensor) -> torch.Tensor:
        return functional_call(module, dict(zip(names, values, strict=True)), (x,))

    given = tuple(parameters[name].detach() for name in names)
    blocks = torch.autograd.functional.jacobian(function, given)
    return torch.cat(
        [block.reshape(-1, p.numel()) for block, p in zip(blocks, given, strict=True)], 1
    )


@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode"])
@pytest.mark.parametrize("pattern", ["*", "encoder.*.weight", "[head.bias,encoder.0.*]"])
def test_a_jacobian_by_parameters(
    pattern: str, strategy: str, model: Path, run_job: Run, resolved: Resolve
) -> None:
    overrides = ("op=jacobian", f"strategy={strategy}", *of("Net"), "wrt=params", *VALUES)
    overrides = (*overrides, "seed=3")
    if pattern != "*":
        overrides = (*overrides, f"wrt.pattern={pattern}")
    job = resolved(*overrides)
    torch.manual_seed(3)
    net = user(job).Net().double()
    names = {
        "*": [name for name, _ in net.named_parameters()],
        "encoder.*.weight": ["encoder.0.weight"],
    }.get(pattern, ["encoder.0.weight", "encoder.0.bias", "head.bias"])
    result = run_job(job)
    assert [tensor.name for tensor in result.columns] == names
    assert [tensor.shape for tensor in result.columns] == [
        tuple(net.get_parameter(name).shape) for name in names
    ]
    expected = reference(net, torch.tensor([1.0, 2, 3], dtype=torch.float64), names)
    np.testing.assert_allclose(result[...], expected, rtol=1e-12, atol=1e-14)
    with torch.no_grad():
        value = net(torch.tensor([1.0, 2, 3], dtype=torch.float64))
    np.testing.assert_allclose(result.value["output"], value, rtol=1e-14)


def test_a_jacobian_by_inputs_of_an_instance_leaves_it_as_it_was(
    model: Path, run_job: Run, resolved: Resolve
) -> None:
    job = resolved("op=jacobian", *of("net"), *VALUES)
    net = user(job).net
    result = run_job(job)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in net.parameters())
    double = net.double()
    x = torch.tensor([1.0, 2, 3], dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(double, x)
    np.testing.assert_allclose(result[...], expected, rtol=1e-12)
    assert [tensor.name for tensor in result.columns] == ["x"]


def test_tied_parameters_count_once(model: Path, run_job: Run, resolved: Resolve) -> None:
    job = resolved("op=jacobian", *of("Tied"), "wrt=params", *VALUES)
    result = run_job(job)
    assert [tensor.name for tensor in result.columns] == ["first.weight"]
    torch.manual_seed(0)
    tied = user(job).Tied().double()
    x = torch.tensor([1.0, 2, 3], dtype=torch.float64)
    weight = tied.first.weight.detach()
    expected = torch.autograd.functional.jacobian(lambda w: w @ torch.tanh(w @ x), weight)
    np.testing.assert_allclose(result[...], expected.reshape(3, 9), rtol=1e-12, atol=1e-15)


def test_frozen_parameters_are_constants(model: Path, resolved: Resolve) -> None:
    job = resolved("op=jacobian", *of("frozen", "function.factory=true"), "wrt=params", *VALUES)
    assert list(job.point) == ["head.weight", "head.bias"]


def test_some_inputs_are_constants_and_integers_stay_integers(
    model: Path, run_job: Run, resolved: Resolve
) -> None:
    values = ("inputs=constants", "inputs.values.left=[1.0,2,3]", "inputs.values.right=[1,2]")
    job = resolved("op=jacobian", *of("Two"), *values, "wrt.pattern=right")
    assert list(job.point) == ["right"]
    result = run_job(job)
    torch.manual_seed(0)
    weight = user(job).Two().double().bilinear.weight.detach()
    expected = torch.einsum("okl,k->ol", weight, torch.tensor([1.0, 2, 3], dtype=torch.float64))
    np.testing.assert_allclose(result[...], expected, rtol=1e-12)
    words = ("inputs=constants", "inputs.values.tokens=[[0,1],[2,3]]", "wrt=params")
    assert run_job("op=jacobian", *of("Words"), *words).shape == (10, 35)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_modes_of_a_module_with_running_statistics(
    mode: str, model: Path, run_job: Run, resolved: Resolve
) -> None:
    data = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.save(model / "x.npy", data)
    inputs = ("inputs=numpy", "inputs.path=x.npy", "strategy=vectorize")
    job = resolved("op=jacobian", *of("Normed", f"function.mode={mode}"), "wrt=params", *inputs)
    result = run_job(job)
    torch.manual_seed(0)
    normed = user(job).Normed().double().train(mode == "train")
    names = [name for name, _ in normed.named_parameters()]
    expected = reference(normed, data, names)
    np.testing.assert_allclose(result[...], expected, rtol=1e-9, atol=1e-12)


# Weights


def trained(model: Path, resolved: Resolve) -> torch.nn.Module:
    """Return the user's module with other weights than those of its construction."""
    job = resolved("op=jacobian", *of("Net"), *VALUES)
    net = user(job).Net()
    with torch.no_grad():
        for number, parameter in enumerate(net.parameters()):
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape))
            parameter.mul_(number + 1)
    save_file(net.state_dict(), model / "net.safetensors")
    torch.save(net.state_dict(), model / "net.pt")
    torch.save({"epoch": 3, "run": {"model": net.state_dict()}}, model / "checkpoint.pt")
    torch.save(net, model / "whole.pt")
    fewer = {name: t for name, t in net.state_dict().items() if name != "head.bias"}
    save_file(fewer | {"haed.bias": torch.ones(2)}, model / "misnamed.safetensors")
    save_file(fewer, model / "fewer.safetensors")
    save_file({**net.state_dict(), "head.bias": torch.ones(3)}, model / "shape.safetensors")
    (model / "damaged.safetensors").write_bytes((model / "net.safetensors").read_bytes()[:100])
    (model / "damaged.pt").write_bytes((model / "net.pt").read_bytes()[:100])
    (model / "net.txt").write_text("")
    return net.double()


@pytest.mark.parametrize(
    "weights",
    [
        ["function.weights=net.safetensors"],
        ["function.weights=net.pt"],
        ["function.weights=checkpoint.pt", "function.weights_key=run.model"],
    ],
    ids=["safetensors", "pt", "checkpoint"],
)
def test_weights_from_a_file(
    weights: list[str], model: Path, run_job: Run, resolved: Resolve
) -> None:
    net = trained(model, resolved)
    result = run_job("op=jacobian", *of("Net", *weights), *VALUES)
    x = torch.tensor([1.0, 2, 3], dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(net, x)
    np.testing.assert_allclose(result[...], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("weights", "pattern"),
    [
        (["function.weights=no.pt"], "function.weights=no.pt: there is no such file.*no.pt"),
        (["function.weights=net.txt"], "valid are files .safetensors, .pt"),
        (["function.weights=damaged.pt"], "damaged.pt: this is not a readable file of torch.save"),
        (["function.weights=damaged.safetensors"], "not a readable .safetensors file"),
        (["function.weights=whole.pt"], "more than tensors and plain values, and loading it could"),
        (["function.weights=checkpoint.pt"], "not a dictionary of tensors.*weights_key=run"),
        (
            ["function.weights=checkpoint.pt", "function.weights_key=runs"],
            "weights_key=runs: valid are epoch, run; did you mean run",
        ),
        (
            ["function.weights=misnamed.safetensors"],
            "has no head.bias and has haed.bias, which the module has not; did you mean head.bias",
        ),
        (["function.weights=fewer.safetensors"], "the file has no head.bias$"),
        (["function.weights=shape.safetensors"], r"head.bias has the shape \(3,\) in the file and"),
        (["function.mode=evaluate"], "function.mode=evaluate: valid are eval, train"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_weights_that_do_not_fit_are_reported(
    weights: list[str], pattern: str, model: Path, resolved: Resolve
) -> None:
    trained(model, resolved)
    with pytest.raises(JobError, match=pattern):
        resolved("op=jacobian", *of("Net", *weights), *VALUES)


def test_weights_keep_their_precision(model: Path, resolved: Resolve) -> None:
    job = resolved("op=jacobian", *of("Net"), *VALUES)
    net = user(job).Net().double()
    with torch.no_grad():
        net.head.bias.copy_(torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))
    save_file(net.state_dict(), model / "double.safetensors")
    weights = ("function.weights=double.safetensors", "seed=7")
    loaded = resolved("op=jacobian", *of("Net", *weights), *VALUES, "wrt=params")
    assert loaded.point["head.bias"].tolist() == [1 / 3, 2 / 3]


def test_weights_are_part_of_the_job(model: Path, resolved: Resolve) -> None:
    trained(model, resolved)
    plain, loaded = (
        resolved("op=jacobian", *of("Net", *weights), *VALUES).fingerprint
        for weights in ([], ["function.weights=net.pt"])
    )
    assert plain != loaded


# Losses over data


def data(model: Path, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(11, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(11, 2, generator=generator, dtype=torch.float64)
    label = torch.arange(11) % 2 if kind == "cross_entropy" else y
    np.savez(model / "data.npz", x=x.numpy(), label=label.numpy())
    np.save(model / "x.npy", x.numpy())
    np.save(model / "label.npy", label.numpy())
    return x, label


def reference_loss(kind: str, reduction: str) -> Callable[..., torch.Tensor]:
    return {
        "mse": lambda y, t: torch.nn.functional.mse_loss(y, t, reduction=reduction),
        "cross_entropy": lambda y, t: torch.nn.functional.cross_entropy(y, t, reduction=reduction),
        "python": lambda y, t: torch.sqrt(1 + (y - t) ** 2).sum(),
    }[kind]


@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode"])
@pytest.mark.parametrize(
    ("kind", "reduction"),
    [("mse", "mean"), ("mse", "sum"), ("cross_entropy", "mean"), ("python", "sum")],
)
def test_a_hessian_of_a_loss_over_batches(
    kind: str, reduction: str, strategy: str, model: Path, run_job: Run, resolved: Resolve
) -> None:
    x, label = data(model, kind)
    files = ("inputs=named", "inputs.tensors.x=x.npy", "inputs.tensors.label=label.npy")
    loss = (f"loss={kind}", f"loss.reduction={reduction}", "loss.batch_size=4")
    loss += ("loss.target=code/model.py:huber",) if kind == "python" else ()
    overrides = ("op=hessian", f"strategy={strategy}", *of("Net"), "wrt=params", *loss, *files)
    job = resolved(*overrides)
    assert isinstance(job.function.function, BatchSum)
    result = run_job(job)
    torch.manual_seed(0)
    net = user(job).Net().double()
    names = [name for name, _ in net.named_parameters()]
    given = tuple(parameter.detach() for parameter in net.parameters())
    expected_loss = reference_loss(kind, reduction)

    def total(*values: torch.Tensor) -> torch.Tensor:
        output = functional_call(net, dict(zip(names, values, strict=True)), (x,))
        return expected_loss(output, label)

    sizes = [parameter.numel() for parameter in given]
    nested = torch.autograd.functional.hessian(total, given)
    expected = torch.cat(
        [
            torch.cat([block.reshape(n, m) for block, m in zip(row, sizes, strict=True)], 1)
            for row, n in zip(nested, sizes, strict=True)
        ]
    )
    np.testing.assert_allclose(result[...], expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(result.value["output"], total(*given), rtol=1e-12)
    assert result.execution["verification"]["kind"] != "none"


@pytest.mark.parametrize("operation", ["vhp", "hvp", "vjp", "jvp", "jacobian"])
def test_other_operations_over_batches_agree_with_those_at_once(
    operation: str, model: Path, run_job: Run
) -> None:
    data(model, "mse")
    overrides = (f"op={operation}", "strategy=vectorize", *of("Net"), "wrt=params", "loss=mse")
    overrides = (*overrides, "inputs=numpy", "inputs.path=data.npz", "vectors.count=2")
    if operation == "jacobian":
        overrides = overrides[:-1]
    at_once = run_job(*overrides)
    batched = run_job(*overrides, "loss.batch_size=3")
    assert at_once.path != batched.path
    np.testing.assert_allclose(batched[...], at_once[...], rtol=1e-10, atol=1e-13)


def test_a_function_that_is_a_loss_itself(model: Path, run_job: Run) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((7, 3)), generator.standard_normal(7)
    np.savez(model / "data.npz", x=x, y=y, theta=np.ones(3))
    overrides = ("op=hessian", *of("own_loss"), "loss=own", "wrt.pattern=theta")
    result = run_job(*overrides, "loss.batch_size=2", "inputs=numpy", "inputs.path=data.npz")
    np.testing.assert_allclose(result[...], 2 * x.T @ x / 7, rtol=1e-12)


def test_a_batch_is_all_that_is_read_at_once(model: Path, resolved: Resolve) -> None:
    data(model, "mse")
    files = ("inputs=named", "inputs.tensors.x=x.npy", "inputs.tensors.label=label.npy")
    job = resolved("op=hessian", *of("Net"), "wrt=params", "loss=mse", "loss.batch_size=4", *files)
    seen: list[int] = []
    function = job.function.function
    assert isinstance(function, BatchSum)
    original = function._batch

    def batch(rows: slice) -> Any:
        seen.append(rows.stop - rows.start)
        return original(rows)

    function._batch = batch
    function(*job.point.values())
    assert seen == [4, 4, 3]


@pytest.mark.parametrize(
    ("overrides", "pattern"),
    [
        (["wrt=params", "wrt.pattern=encoder.0.wieght"], "no parameter.*did you mean encoder.0.w"),
        (["wrt=params", "wrt.pattern=[]"], r"wrt.pattern=\[\]: valid is a pattern"),
        (["wrt.pattern=y"], "wrt.pattern=y: no input has such a name; there are x"),
        (["loss=mse", "wrt=params"], "the source holds x; the function needs x, label"),
        (["loss=mse", "loss.reduction=total"], "loss.reduction=total: valid are mean, sum"),
        (["loss=mse", "loss.batch_size=0"], "loss.batch_size=0: valid are null"),
        (["loss=mse", "loss.label=x"], "loss.label=x: the function has an argument of this name"),
        (["loss=own", "loss.batch_size=2"], "there are no data to split"),
        (["loss=python", "loss.target=code/model.py:point"], "of type Tensor and cannot be called"),
        (["loss=python", "loss.target=code/model.py:hubr"], "did you mean huber"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_choices_that_do_not_fit_are_reported(
    overrides: list[str], pattern: str, model: Path, resolved: Resolve
) -> None:
    values = VALUES
    if "loss" in overrides[0] and "params" not in overrides[-1]:
        values = (*VALUES, "inputs.values.label=[1,2]") if "own" not in overrides[0] else VALUES
    with pytest.raises(JobError, match=pattern):
        resolved("op=jacobian", *of("Net"), *values, *overrides)


def test_labels_of_another_shape_are_not_broadcast(model: Path, run_job: Run) -> None:
    np.savez(model / "data.npz", x=np.ones((5, 3)), label=np.ones((5, 1)))
    overrides = ("op=hessian", *of("Net"), "wrt=params", "loss=mse")
    with pytest.raises(JobError, match=r"output has the shape \(5, 2\) and the labels \(5, 1\)"):
        run_job(*overrides, "inputs=numpy", "inputs.path=data.npz")
    np.savez(model / "data.npz", x=np.ones((5, 3)), label=np.arange(5))
    with pytest.raises(JobError, match=r"labels go from 0 to 4; the output has the classes 0 to 1"):
        run_job(*overrides, "loss=cross_entropy", "inputs=numpy", "inputs.path=data.npz")


@pytest.mark.parametrize(
    ("target", "pattern"),
    [
        ("code/modle.py:energy", "there is no such file; looked for .*did you mean model.py"),
        ("code/model.py:enrgy", "there is no enrgy in .*model.py; did you mean energy"),
        ("code/model.py", "valid is an import path such as .* or a file such as"),
        ("code/model.py:point", "of type Tensor and cannot be called"),
        ("{stiffness: 3}", "a mapping needs _target_"),
        ("{_target_: code/model.py:missing}", "there is no missing"),
        ("{_target_: code/model.py:make}", "make.*missing 1 required positional argument"),
    ],
)
def test_a_target_that_does_not_exist_is_reported(
    target: str, pattern: str, model: Path, command_line: Any
) -> None:
    ended = command_line("op=jacobian", "function=python", f"function.target={target}", *VALUES)
    assert ended.code == 1
    assert ended.err.startswith("error: function.target=")
    import re

    assert re.search(pattern, ended.err), ended.err
    assert "Traceback" not in ended.err
