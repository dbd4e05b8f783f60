"""Weights of a module from a file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from jobs.errors import JobError
from jobs.job import Job
from outputs import Result
from tests.jobs.support.own_model import VALUES, of, user

Resolve = Callable[..., Job]
Run = Callable[..., Result]


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
