"""Every built-in problem: its derivatives, seeds, sizes and options."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from jobs.problems import BUILDERS, load_builder
from tests.jobs.support.problem_cases import (
    CASES,
    ENGINES,
    HESSIAN_ENGINES,
    SCALARS,
    SEEDED,
    assert_close,
    batched,
    build,
    captured,
    central_differences,
    flat,
    gradient,
    inputs,
    loop,
    tensors,
)

# A warning of torch: its first forward derivative imports a module with a deprecated call.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


def test_cases_cover_every_problem():
    assert list(CASES) == list(BUILDERS)
    assert tuple(name for name in CASES if build(name).scalar is not None) == SCALARS


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_jacobian_is_the_central_difference(name, engine):
    problem = build(name)
    func, x = flat(problem, problem.function)
    assert_close(ENGINES[engine](func, x), central_differences(func, x), 1e-7)


@pytest.mark.parametrize("engine", HESSIAN_ENGINES)
@pytest.mark.parametrize("name", SCALARS)
def test_hessian_is_the_central_difference_of_the_gradient(name, engine):
    problem = build(name)
    func, x = flat(problem, problem.scalar)
    hessian = HESSIAN_ENGINES[engine](func, x)
    assert_close(hessian, hessian.T)
    assert_close(hessian, central_differences(partial(gradient, func), x), 1e-7)


@pytest.mark.parametrize("name", CASES)
def test_forward_and_reverse_are_adjoint(name):
    problem = build(name)
    point = inputs(problem)
    generator = torch.Generator().manual_seed(0)

    def like(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)

    tangents = tuple(like(t) for t in point)
    pushed = torch.func.jvp(problem.function, point, tangents)[1]
    cotangent = like(pushed)
    leaves = [t.detach().requires_grad_() for t in point]
    pulled = torch.autograd.grad(problem.function(*leaves), leaves, cotangent)
    forward = (cotangent * pushed).sum()
    reverse = torch.stack([(g * t).sum() for g, t in zip(pulled, tangents, strict=True)]).sum()
    scale = cotangent.norm() * pushed.norm()
    assert abs(forward - reverse) < 1e-13 * scale


@pytest.mark.parametrize("name", ["arrow", "finite_elements"])
def test_functions_are_the_gradients_of_their_scalar_forms(name):
    problem = build(name)
    (x,) = inputs(problem)
    assert problem.scalar is not None
    assert_close(problem.function(x), torch.func.grad(problem.scalar)(x))


@pytest.mark.parametrize(
    ("name", "form"),
    [(name, "function") for name in CASES] + [(name, "scalar") for name in SCALARS],
)
def test_float32_agrees_with_float64(name, form):
    problems = build(name, torch.float32), build(name)
    (func, x), (reference, y) = (flat(problem, getattr(problem, form)) for problem in problems)
    assert x.dtype == func(x).dtype == torch.float32
    assert_close(x, y, 1e-7)
    assert_close(func(x), reference(y), 1e-5)
    assert_close(batched(func, x), batched(reference, y), 1e-5)


@pytest.mark.parametrize("name", SEEDED)
def test_the_seed_alone_determines_a_problem(name):
    state = torch.random.get_rng_state()
    one, again, other = build(name), build(name), build(name, seed=100)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(inputs(one), inputs(again), strict=True))
    value, same, different = (
        func(x) for func, x in (flat(p, p.function) for p in (one, again, other))
    )
    assert torch.equal(value, same)
    assert not torch.allclose(value, different)


@pytest.mark.parametrize("name", CASES)
def test_differentiating_writes_nothing_in_place(name):
    problem = build(name)
    held = [*inputs(problem), *tensors(captured(problem))]
    copies, versions = [t.clone() for t in held], [t._version for t in held]
    func, x = flat(problem, problem.function)
    for engine in ENGINES.values():
        engine(func, x)
    for form in (problem.function, problem.scalar or problem.function):
        form(*inputs(problem))
    assert [t._version for t in held] == versions
    assert all(torch.equal(t, copy) for t, copy in zip(held, copies, strict=True))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_a_problem_is_the_same_on_every_device(name):
    here, there = build(name), build(name, device="cuda")
    assert all(t.is_cuda for t in [*inputs(there), *tensors(captured(there))])
    expected, actual = (loop(*flat(problem, problem.function)).cpu() for problem in (here, there))
    assert_close(actual, expected)


@pytest.mark.parametrize(
    ("name", "options", "columns", "rows"),
    [
        ("rosenbrock", {"n": 2}, 2, 1),
        ("mlp", {"n": 16}, 16, 16),
        ("mlp_parameters", {"n": 20, "samples": 16}, 2_685, 80),
        ("mlp_parameters", {"n": 256, "samples": 16}, 427_072, 1_024),
        ("mlp_parameters", {"n": 1, "samples": 1}, 13, 1),
        ("pairwise_energy", {"n": 2}, 6, 1),
        ("gp_residual", {"n": 10_000, "inducing": 1_000}, 1_001, 10_000),
        ("gp_residual", {"n": 1, "inducing": 1}, 2, 1),
        ("brusselator", {"n": 3}, 18, 18),
        ("transformer_block", {"n": 48, "width": 192, "heads": 6}, 9_216, 9_216),
        ("rotation_chain", {"n": 3_005}, 14, 9_015),
        ("rotation_chain", {"n": 1}, 14, 3),
        ("neighbour_energy", {"n": 3}, 324, 1),
        ("convolution_stack", {"n": 1}, 1, 1),
        ("burgers", {"n": 2}, 2, 2),
        ("arrow", {"n": 2}, 2, 2),
        ("finite_elements", {"n": 1}, 8, 8),
    ],
)
def test_sizes(name, options, columns, rows):
    problem = build(name, torch.float32, **options)
    func, x = flat(problem, problem.function)
    value = func(x)
    assert x.shape == (columns,)
    assert value.shape == (rows,)
    assert value.isfinite().all()
    assert len(problem.outputs) == 1
    if problem.scalar is not None:
        assert problem.scalar(*inputs(problem)).shape == ()


@pytest.mark.parametrize(
    ("name", "option", "value", "valid"),
    [
        ("rosenbrock", "n", 1, "at least 2"),
        ("rosenbrock", "n", 2.5, "at least 2"),
        ("rosenbrock", "n", True, "at least 2"),
        ("mlp", "n", 0, "at least 1"),
        ("mlp", "seed", -1, "from 0"),
        ("mlp", "seed", 2**63, "from 0"),
        ("mlp_parameters", "n", -3, "at least 1"),
        ("mlp_parameters", "samples", 0, "at least 1"),
        ("pairwise_energy", "n", 1, "at least 2"),
        ("gp_residual", "n", 0, "at least 1"),
        ("gp_residual", "inducing", 0, "at least 1"),
        ("brusselator", "n", 2, "at least 3"),
        ("transformer_block", "n", 0, "at least 1"),
        ("transformer_block", "width", 0, "at least 1"),
        ("transformer_block", "heads", 0, "at least 1"),
        ("transformer_block", "heads", 3, "must divide function.width=4"),
        ("rotation_chain", "n", 0, "at least 1"),
        ("neighbour_energy", "n", 1, "at least 2"),
        ("convolution_stack", "n", 0, "at least 1"),
        ("convolution_stack", "channels", 0, "at least 1"),
        ("burgers", "n", 1, "at least 2"),
        ("arrow", "n", 1, "at least 2"),
        ("finite_elements", "n", 0, "at least 1"),
    ],
)
def test_an_invalid_option_is_named(name, option, value, valid):
    with pytest.raises(ValueError, match=rf"^function\.{option}={value} .*{valid}.*\.$"):
        build(name, **{option: value})


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"function=rosenbrok is no built-in problem.*rosenbrock"):
        load_builder("rosenbrok")


def test_listing_the_problems_imports_neither_torch_nor_a_problem():
    script = (
        "import sys, jobs; before = set(sys.modules); import jobs.problems;"
        "print(*set(sys.modules) - before)"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert "torch" not in loaded
    assert [m for m in loaded if m.startswith("jobs.")] == ["jobs.problems"]
