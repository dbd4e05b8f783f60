"""Stages of lower precision: right within their tolerance, verified, and named in the record."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian, jacobian

from autodiff_core import BlockStream
from jobs.errors import JobError
from jobs.execution.local_source import compute_block
from jobs.job import Job
from jobs.streams.opening import open_job_stream
from jobs.verification.precision import advice, allowed_error, with_observed
from jobs.verification.selection import prepare_check
from outputs import Result, verify_result
from tests.support.pairs import pairs

Run = Callable[..., Result]
Resolve = Callable[..., Job]

FUNCTIONS = """
import torch
from torch import nn

def repeated(x):
    for _ in range(6):
        single = x.float()
        normed = single * single.square().mean().add(1e-6).rsqrt()
        x = torch.tanh(1.3 * normed).to(x.dtype).cumsum(0)
    return x

class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, 6))

    def forward(self, x):
        single = x.to(torch.float32)
        normed = single * torch.rsqrt(single.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * normed.to(x.dtype)

def rotary(x):
    pairs = torch.view_as_complex(x.float().reshape(3, 2))
    turns = torch.polar(torch.ones(3), torch.arange(3.0))
    return torch.view_as_real(pairs * turns).flatten().type_as(x).sin()

def mixed(x):
    weight = torch.linspace(-1, 1, 36).reshape(6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = torch.tanh(x.float() @ weight)
    return 2 * y.to(x.dtype)

table = torch.linspace(0.5, 2, 6, dtype=torch.float16)
def half_table(x): return (x.half() * table).sin().to(x.dtype).cumsum(0)

class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.float().exp().to(x.dtype)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return (cotangent.float() * x.float().exp()).to(x.dtype)

def fused(x): return _Fused.apply(1.3 * x).cumsum(0)
"""
STAGES = {
    "repeated": ("float32", "x.float()"),
    "Norm": ("float32", "x.to(torch.float32)"),
    "rotary": ("float32", "x.float().reshape"),
    "mixed": ("bfloat16", "x.float() @ weight"),
    "half_table": ("float16", "x.half()"),
    "fused": ("float32", "x.float().exp()"),
}
STRATEGIES = ("reverse-loop", "vectorize", "forward-mode", "forward-loop", "auto")
POINT = np.array([0.3, -0.7, 0.9, 0.2, -0.4, 0.6])


@pytest.fixture
def low(directory: Path) -> Path:
    scalars = [
        f"def {name}_scalar(x): return {name}{'()' * (name == 'Norm')}(x).sin().sum()\n"
        for name in STAGES
        if name != "Norm"
    ]
    module = "class Norm_scalar(Norm):\n"
    module += "    def forward(self, x): return super().forward(x).sin().sum()\n"
    (directory / "low.py").write_text(FUNCTIONS + "".join(scalars) + module)
    np.save(directory / "x.npy", POINT)
    return directory


def of(name: str, operation: str, strategy: str, *more: str) -> list[str]:
    scalar = "_scalar" if operation == "hessian" else ""
    target = ["function=python", f"function.target=./low.py:{name}{scalar}"]
    source = ["inputs=numpy", "inputs.path=x.npy"]
    return [f"op={operation}", f"strategy={strategy}", *target, *source, *more]


def truth(folder: Path, name: str, operation: str) -> np.ndarray:
    """The derivative with every stage in float64."""
    text = (folder / "low.py").read_text()
    for low in (".float()", ".half()"):
        text = text.replace(low, ".double()")
    for low in ("torch.float32", "torch.float16", "torch.bfloat16"):
        text = text.replace(low, "torch.float64")
    text = text.replace("torch.autocast", "_no_autocast")
    before = torch.get_default_dtype()
    names: dict[str, object] = {"_no_autocast": lambda *_, **__: torch.enable_grad()}
    torch.set_default_dtype(torch.float64)
    try:
        exec(text, names)
        function = names[name + ("_scalar" if operation == "hessian" else "")]
        function = function() if isinstance(function, type) else function
        derivative = jacobian if operation == "jacobian" else hessian
        return np.asarray(derivative(function, torch.tensor(POINT)))  # pyright: ignore
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    ("name", "operation", "strategy"), pairs([*STAGES], ["jacobian", "hessian"], STRATEGIES)
)
def test_a_stage_of_lower_precision_is_verified_and_named(
    low: Path, run_job: Run, name: str, operation: str, strategy: str
) -> None:
    if name == "fused" and strategy.startswith("forward"):
        pytest.skip("the custom Function has no forward derivative")
    result = run_job(*of(name, operation, strategy))
    dtype, source = STAGES[name]
    figures = result.execution["verification"]
    assert figures["kind"] == "probe"
    assert figures["tolerance"] == torch.finfo(getattr(torch, dtype)).eps ** 0.5
    stage = figures["narrowest_stage"]
    assert stage["dtype"] == dtype
    file, _, number = stage["line"].rpartition(":")
    assert source in Path(file).read_text().splitlines()[int(number) - 1]
    assert dtype in figures["tolerance_from"]
    states = {each["state"] for each in result.execution["differences"]}
    assert states == {"agree"}
    expected = truth(low, name, operation)
    error = np.abs(result[...] - expected).max() / np.abs(expected).max()
    assert error < figures["tolerance"]
    assert verify_result(result.path).ok
    if name != "fused":
        assert result.execution["fallbacks"] == []


@pytest.mark.parametrize("name", ["repeated", "mixed"])
def test_an_error_beyond_that_tolerance_is_found(
    low: Path, resolved: Resolve, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    job = with_observed(resolved(*of(name, "jacobian", "vectorize")))
    stream = open_job_stream(job, "vectorize")
    check = prepare_check(job, stream)
    compute_block(job, stream, check, range(6))
    original = BlockStream.block

    def damaged(self: BlockStream, start: int, stop: int):
        block = original(self, start, stop)
        block.pieces[0].mul_(1 + 20 * allowed_error(job))
        return block

    monkeypatch.setattr(BlockStream, "block", damaged)
    dtype = STAGES[name][0]
    with pytest.raises(JobError, match=rf"disagree.*, twice; the function computes in {dtype} \("):
        compute_block(job, stream, check, range(6))


def test_the_option_overrides_and_is_recorded(low: Path, run_job: Run) -> None:
    result = run_job(*of("repeated", "jacobian", "vectorize", "verify.tolerance=1e-5"))
    figures = result.execution["verification"]
    assert figures["tolerance"] == 1e-5
    assert figures["tolerance_from"] == "verify.tolerance=1e-05"
    assert figures["narrowest_stage"]["dtype"] == "float32"


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("rotary", "float64", "computes in float32 ("),
        ("rotary", "float32", "; dtype=float64 helps if the function is ill-conditioned"),
        ("mixed", "float32", "computes in bfloat16 ("),
    ],
)
def test_a_wider_dtype_is_advised_where_it_would_help(
    low: Path, resolved: Resolve, name: str, dtype: str, expected: str
) -> None:
    job = with_observed(resolved(*of(name, "jacobian", "vectorize", f"dtype={dtype}")))
    assert expected in advice(job)


def test_a_job_in_the_widest_dtype_has_none_to_advise(resolved: Resolve) -> None:
    assert advice(with_observed(resolved("op=jacobian", "function=mlp"))) == ""


def test_the_outcome_names_the_stage(low: Path, run_job: Run, said) -> None:
    run_job(*of("repeated", "jacobian", "vectorize"))
    assert "the least precise stage is float32 (float in " in said.getvalue()
