"""What the derivative runs through counts as a stage, and nothing else."""

import sysconfig
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from jobs.functions.stages import observed

X = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
WEIGHTS = nn.Linear(3, 3)


class Quantised(torch.autograd.Function):
    """A mask and a constant of float32 inside; the values stay in float64."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp() * torch.tensor(127.0) * (x.float() > 0)

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * ctx.saved_tensors[0].exp() * 127


class Filled(torch.autograd.Function):
    """A result that is written in place, from float32."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        result = torch.empty_like(x)
        result[:] = x.float().exp()
        return result

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * ctx.saved_tensors[0].exp()


def single(x: Tensor) -> Tensor:
    return x.float().exp().double()


PASSED: dict[str, Callable[..., Tensor]] = {
    "cast": single,
    "in place": lambda x: x.float().mul_(2).sin_().double(),
    "a part": lambda x: torch.stack([x.float()[0].double(), x[1]]),
    "checkpoint": lambda x: checkpoint(single, x, use_reentrant=False),
    "reentrant checkpoint": lambda x: checkpoint(single, x, use_reentrant=True),
    "inner gradient": lambda x: torch.func.grad(lambda y: (y.float() ** 3).sum())(x),
    "vmap": lambda x: torch.func.vmap(lambda y: y.float().sin().double())(x),
    "complex": lambda x: torch.complex(x.float(), x.float()).abs().double(),
    "custom Function": Filled.apply,
    "output": lambda x: x.sin().float(),
}
NOT_PASSED: dict[str, Callable[..., Tensor]] = {
    "mask": lambda x: x * (x.float() > 0),
    "constant": lambda x: x * torch.ones(3).exp(),
    "weights": lambda x: x * WEIGHTS(torch.ones(3)).double(),
    "detached": lambda x: x * x.detach().float().exp(),
    "index": lambda x: torch.tensor([1.0, 2.0, 3.0])[(x > 0).long()] * x,
    "custom Function": Quantised.apply,
}


@pytest.mark.parametrize("name", PASSED)
def test_a_stage_that_the_derivative_passes(name: str) -> None:
    stage = observed(PASSED[name], [X], 0).stage
    assert stage is not None
    assert stage.dtype in (torch.float32, torch.complex64)
    assert "test_stages.py:" in stage.line or name == "vmap"


@pytest.mark.parametrize("name", NOT_PASSED)
def test_what_is_on_no_path_does_not_count(name: str) -> None:
    assert observed(NOT_PASSED[name], [X], 0).stage is None


def test_the_narrowest_of_several_is_named_at_its_first_line() -> None:
    def several(x: Tensor) -> Tensor:
        y = x.float().double()
        z = x.half()
        return y * z.sin().double()

    stage = observed(several, [X], 0).stage
    assert stage is not None
    assert (stage.dtype, stage.operation) == (torch.float16, "half")
    first = several.__code__.co_firstlineno
    assert stage.line == f"{__file__}:{first + 2}"


def test_a_stage_as_precise_as_the_point_is_none() -> None:
    assert observed(single, [X.float()], 0).stage is None


def test_imaginary_parts_that_are_dropped_are_seen_each_time() -> None:
    def dropping(x: Tensor) -> Tensor:
        return (x * 1j).to(x.dtype) + x

    for _ in range(2):
        found = observed(dropping, [X], 0)
        assert found.real_casts == (f"{__file__}:{dropping.__code__.co_firstlineno + 1}",)


class Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * ctx.saved_tensors[0].cos()

    @staticmethod
    def jvp(ctx, tangent):
        return tangent * ctx.saved_tensors[0].cos()


FORWARD_OF = {
    "no jvp": (lambda x: Filled.apply(2 * x), "the custom autograd.Function Filled defines no jvp"),
    "a jvp": (lambda x: Sine.apply(2 * x), ""),
    "on no path": (lambda x: x + Filled.apply(x.detach()), ""),
    "no custom Function": (torch.sin, ""),
}


@pytest.mark.parametrize("name", FORWARD_OF)
def test_a_custom_function_on_the_path_tells_whether_a_tangent_passes(name: str) -> None:
    function, why = FORWARD_OF[name]
    assert observed(function, [X], 0).no_forward == why
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(X, X)
        if why:
            with pytest.raises(RuntimeError, match="implement the jvp"):
                function(dual)
        else:
            assert forward_ad.unpack_dual(function(dual)).tangent is not None


def test_a_function_that_fails_has_no_stage() -> None:
    def failing(x: Tensor) -> Tensor:
        raise ValueError("no")

    assert observed(failing, [X], 0).stage is None


def test_a_stage_in_a_library_is_named_there_and_not_where_the_job_is_called() -> None:
    library = f"{sysconfig.get_paths()['purelib']}/library.py"
    names: dict[str, Any] = {}
    exec(compile("def narrow(x):\n    return x.float().double()\n", library, "exec"), names)
    stage = observed(names["narrow"], [X], 0).stage
    assert stage is not None
    assert stage.line == f"{library}:2"
