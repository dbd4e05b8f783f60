"""Jobs that compile nothing do not load torch's compiler, and it works where it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def succeed(program: str, *options: str) -> None:
    """Run a program in a fresh interpreter, without an error."""
    command = [sys.executable, *options, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


DERIVATIVE = """
import sys
import torch
from jobs.machine.warm_up import warm_up

warm_up()


def energy(x):
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2 / 3).sum()


def gradient(x):
    x = x if x.requires_grad else x.requires_grad_()
    return torch.autograd.grad(energy(x), x, create_graph=True)[0]


def tangent(x, v):
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, v)
        return torch.autograd.forward_ad.unpack_dual(gradient(dual)).tangent


x, v = torch.linspace(-1, 1, 5).double(), torch.ones(5).double()
expected = torch.autograd.functional.hvp(energy, x, v)[1]
torch.testing.assert_close(tangent(x.clone(), v), expected)
"""

COMPILED = """
assert "torch._dynamo" not in sys.modules
# All but the last step, which writes and compiles C++.
compiled = torch.compile(lambda x: torch.sin(x) * 2, backend="aot_eager")
torch.testing.assert_close(compiled(x), torch.sin(x) * 2)
torch.testing.assert_close(tangent(x.clone(), v), expected)
"""


@pytest.mark.parametrize(
    "program",
    [DERIVATIVE + "assert 'torch._dynamo' not in sys.modules", DERIVATIVE + COMPILED],
    ids=["spared", "wanted later"],
)
def test_forward_derivatives_do_not_load_the_compiler(program: str):
    succeed(program, "-W", "ignore")


DECOMPOSED = """
import sys
import torch
import autodiff_core

def function(x):
    return torch.trace(x.reshape(2, 2)) * x.sin()

x = torch.linspace(0.1, 1, 4, dtype=torch.float64)
found = autodiff_core.jacobian(function, x, strategy="forward-loop")
torch.testing.assert_close(found, torch.autograd.functional.jacobian(function, x))
"""


def test_operators_without_a_forward_derivative_are_decomposed():
    succeed(DECOMPOSED, "-W", "ignore")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("operation", ["jacobian", "hessian"])
def test_a_small_job_loads_neither_the_compiler_nor_sympy(
    operation: str, dtype: str, tmp_path: Path
) -> None:
    program = (
        "import sys\n"
        f"sys.argv[1:] = ['op={operation}', 'function=rosenbrock', 'function.n=4',\n"
        f"                'dtype={dtype}',\n"
        f"                'runs={tmp_path}', 'progress=quiet']\n"
        "from jobs.run import main\n"
        "main()\n"
        "assert 'torch' in sys.modules and 'torch._dynamo' not in sys.modules\n"
        "assert 'sympy' not in sys.modules\n"
        "assert 'torch._decomp.decompositions_for_jvp' not in sys.modules\n"
    )
    succeed(program)


def test_recording_what_works_in_place_loads_neither_the_compiler_nor_sympy() -> None:
    program = (
        "import sys\n"
        "import torch\n"
        "from autodiff_core import blocks\n"
        "from jobs.machine.warm_up import warm_up\n"
        "warm_up()\n"
        "cells = torch.nn.GRU(2, 3).requires_grad_(False)\n"
        "stream = blocks(lambda x: cells(x)[0], torch.ones(4, 1, 2), operation='jacobian',\n"
        "                strategy='forward-mode', engine='captured')\n"
        "assert stream.matrix().shape == (12, 8)\n"
        "assert stream.engine == 'captured', stream.engine_refusal\n"
        "assert not {'torch._dynamo', 'sympy'} & set(sys.modules)\n"
    )
    succeed(program)
