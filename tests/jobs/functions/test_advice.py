"""Messages that say which strategy fails for which reason, and which option helps."""

from collections.abc import Callable
from pathlib import Path

import pytest

from autodiff_core import headline
from jobs.errors import JobError
from outputs import Result

Run = Callable[..., Result]

FUNCTIONS = """
import torch
from torch.autograd.function import once_differentiable

class Cubed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return 3 * gradient * ctx.saved_tensors[0] ** 2

class Endless(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x**3

def cubed(x): return Cubed.apply(x).sum()
def endless(x): return Endless.apply(x)
def internal(x): raise RuntimeError(
    'false INTERNAL ASSERT FAILED at "/pytorch/aten/src/ATen/x.cpp":12, please report a bug to '
    'PyTorch. no rule for this')
def single(x): return torch.ones(3, 3) @ x
def no_double(x): raise RuntimeError("Expected mat_a to be Float32 or Float16 matrix, got Double")
def several(x): return x.sum(), x
def point(): return torch.ones(3)
"""


@pytest.mark.parametrize(
    ("operation", "name", "lines"),
    [
        (
            "hessian",
            "cubed",
            [
                "no strategy can compute this job:",
                "forward-mode, forward-loop: the custom autograd.Function Cubed defines no jvp",
                r"vectorize, reverse-loop: .*this function \(Cubed\) has a backward that autograd",
            ],
        ),
        (
            "jacobian",
            "endless",
            [
                "forward-mode, forward-loop: the custom autograd.Function Endless defines no jvp",
                "reverse-loop: the custom autograd.Function Endless defines no backward",
            ],
        ),
        (
            "jacobian",
            "internal",
            [r"internal check of torch failed \(x.cpp, line 12\): no rule"],
        ),
        ("jacobian", "single", ["the point is float64, as dtype= says; dtype=float32"]),
        ("jacobian", "no_double", ["got Double", "dtype=float32 computes in single precision"]),
        ("hessian", "several", ["func returned 2 tensors.*; function.output= chooses one"]),
    ],
)
def test_the_message_names_the_reason_and_what_helps(
    operation: str, name: str, lines: list[str], directory: Path, run_job: Run
) -> None:
    (directory / "own.py").write_text(FUNCTIONS)
    options = (f"op={operation}", "function=python", f"function.target=own:{name}")
    with pytest.raises(JobError) as caught:
        run_job(*options, "function.point=own:point")
    for line in lines:
        assert caught.match(line)
    assert "report a bug" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (
            'isDifferentiableType(x) INTERNAL ASSERT FAILED at "../autograd/functions/utils.h":75, '
            "please report a bug to PyTorch. ",
            "an internal check of torch failed (utils.h, line 75)",
        ),
        ("an ordinary message: 1", "an ordinary message: 1"),
        ("at site 's':\n\n  outside the support\nmore", "at site 's': outside the support"),
        ("of two lines\nof which one matters", "of two lines"),
    ],
)
def test_internal_assertions_are_said_in_plain_words(text: str, plain: str) -> None:
    assert headline(RuntimeError(text)) == plain
