"""The built-in problems checked against closed forms, numpy, torch.nn and central differences."""

import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from jobs.problems import BUILDERS, load_builder
from jobs.problems.problem import Problem

# A warning of torch: its first forward derivative imports a module with a deprecated call.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

CASES = {
    "rosenbrock": {"n": 7},
    "mlp": {"n": 4, "seed": 1},
    "mlp_parameters": {"n": 4, "samples": 3, "seed": 2},
    "pairwise_energy": {"n": 9, "seed": 3},
    "gp_residual": {"n": 8, "inducing": 5, "seed": 4},
    "brusselator": {"n": 4},
    "transformer_block": {"n": 3, "width": 4, "heads": 2, "seed": 5},
    "rotation_chain": {"n": 31},
    "neighbour_energy": {"n": 2, "seed": 6},
    "convolution_stack": {"n": 4, "channels": 3, "seed": 7},
    "burgers": {"n": 9},
    "arrow": {"n": 8},
    "finite_elements": {"n": 2, "seed": 8},
}
SCALARS = (
    *("rosenbrock", "mlp_parameters", "pairwise_energy", "gp_residual"),
    *("neighbour_energy", "arrow", "finite_elements"),
)
SEEDED = tuple(name for name, options in CASES.items() if "seed" in options)


def build(name: str, dtype: torch.dtype = torch.float64, device: str = "cpu", **options) -> Problem:
    options = CASES[name] | options
    return load_builder(name)(**options, dtype=dtype, device=torch.device(device))


def inputs(problem: Problem) -> tuple[Tensor, ...]:
    return tuple(problem.point.values())


def captured(problem: Problem) -> dict:
    """Return the constants of the function."""
    return problem.function.keywords if isinstance(problem.function, partial) else {}


def tensors(value) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    return [tensor for item in items for tensor in tensors(item)]


def flattened(func, shapes):
    """Return func as a function from one vector to one vector."""

    def of_vector(vector: Tensor) -> Tensor:
        parts = vector.split([math.prod(shape) for shape in shapes])
        out = func(*(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)))
        return torch.cat([o.reshape(-1) for o in (out if isinstance(out, tuple) else (out,))])

    return of_vector


def flat(problem: Problem, func) -> tuple:
    point = inputs(problem)
    return flattened(func, [t.shape for t in point]), torch.cat([t.reshape(-1) for t in point])


def loop(func, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.stack([torch.autograd.grad(y, x, retain_graph=True)[0] for y in func(x).unbind()])


def batched(func, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    y = func(x)
    basis = torch.eye(len(y), dtype=y.dtype)
    return torch.autograd.grad(y, x, basis, is_grads_batched=True)[0]


ENGINES = {
    "loop": loop,
    "batched": batched,
    "reverse": lambda func, x: torch.func.jacrev(func)(x),
    "forward": lambda func, x: torch.func.jacfwd(func)(x),
}


def gradient(func, x: Tensor) -> Tensor:
    """Return the gradient, which autograd can differentiate again."""
    if not x.requires_grad:
        x = x.detach().requires_grad_()
    return torch.autograd.grad(func(x).sum(), x, create_graph=True)[0]


HESSIAN_ENGINES = {
    "loop": lambda func, x: loop(partial(gradient, func), x),
    "batched": lambda func, x: batched(partial(gradient, func), x),
    "reverse over reverse": lambda func, x: torch.func.jacrev(torch.func.jacrev(func))(x)[0],
    "forward over reverse": lambda func, x: torch.func.jacfwd(torch.func.jacrev(func))(x)[0],
    "forward over forward": lambda func, x: torch.func.jacfwd(torch.func.jacfwd(func))(x)[0],
}


def central_differences(func, x: Tensor, step: float = 1e-5) -> Tensor:
    columns = [
        (func(x + step * e) - func(x - step * e)) / (2 * step)
        for e in torch.eye(len(x), dtype=x.dtype)
    ]
    return torch.stack(columns, dim=1).detach()


def assert_close(actual, expected, tolerance: float = 1e-12) -> None:
    """Compare arrays relative to the largest entry."""
    actual, expected = torch.as_tensor(actual).double(), torch.as_tensor(expected).double()
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


# Every problem


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
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert "torch" not in loaded
    assert [m for m in loaded if m.startswith("jobs.")] == ["jobs.problems"]


# Each problem against its own closed form


@pytest.mark.parametrize("n", [2, 3, 8])
def test_rosenbrock_derivatives_in_closed_form(n):
    problem = build("rosenbrock", n=n)
    x = problem.point["x"].numpy()
    assert_close(x, np.where(np.arange(n) % 2, 1.0, -1.2))
    value, slope, hessian = 0.0, np.zeros(n), np.zeros((n, n))
    for i in range(n - 1):
        gap = x[i + 1] - x[i] ** 2
        value += 100 * gap**2 + (1 - x[i]) ** 2
        slope[i] += -400 * x[i] * gap - 2 * (1 - x[i])
        slope[i + 1] += 200 * gap
        hessian[i, i] += 1200 * x[i] ** 2 - 400 * x[i + 1] + 2
        hessian[i + 1, i + 1] += 200
        hessian[i, i + 1] = hessian[i + 1, i] = -400 * x[i]
    func, point = flat(problem, problem.scalar)
    assert_close(func(point), np.array([value]))
    assert_close(gradient(func, point).detach(), slope)
    assert_close(HESSIAN_ENGINES["loop"](func, point), hessian)


def test_rosenbrock_has_its_minimum_at_ones():
    func, x = flat(problem := build("rosenbrock"), problem.scalar)
    assert func(torch.ones_like(x)) == 0
    assert not gradient(func, torch.ones_like(x)).any()


def perceptron_in_numpy(x: np.ndarray, parameters: list[np.ndarray]):
    """Return a three-layer perceptron's activations and dy/d(pre-activation) of hidden layers."""
    w1, b1, w2, b2, w3, b3 = parameters
    h1 = np.tanh(w1 @ x + b1)
    h2 = np.tanh(w2 @ h1 + b2)
    back2 = w3 * (1 - h2**2)
    back1 = back2 @ w2 * (1 - h1**2)
    return w3 @ h2 + b3, h1, h2, back1, back2


def test_mlp_jacobian_by_the_chain_rule():
    problem = build("mlp")
    parameters = [p.numpy() for p in captured(problem)["parameters"]]
    assert [w.shape for w in parameters[::2]] == [(8, 4), (8, 8), (4, 8)]
    y, _, _, back1, _ = perceptron_in_numpy(problem.point["x"].numpy(), parameters)
    func, x = flat(problem, problem.function)
    assert_close(func(x), y)
    assert_close(loop(func, x), back1 @ parameters[0])


def test_mlp_parameters_jacobian_and_loss_by_the_chain_rule():
    problem = build("mlp_parameters")
    assert isinstance(problem.scalar, partial)
    data, targets = (problem.scalar.keywords[name].numpy() for name in ("data", "targets"))
    parameters = [p.numpy() for p in inputs(problem)]
    assert list(problem.point) == [
        f"layer{layer}.{kind}" for layer in (1, 2, 3) for kind in ("weight", "bias")
    ]
    values, rows = [], []
    for x in data:
        y, h1, h2, back1, back2 = perceptron_in_numpy(x, parameters)
        values.append(y)
        for k, unit in enumerate(np.eye(len(y))):
            blocks = [np.outer(back1[k], x), back1[k], np.outer(back2[k], h1), back2[k]]
            blocks += [np.outer(unit, h2), unit]
            rows.append(np.concatenate([block.ravel() for block in blocks]))
    func, point = flat(problem, problem.function)
    assert_close(func(point), np.ravel(values))
    assert_close(loop(func, point), np.array(rows))
    assert_close(problem.scalar(*inputs(problem)), np.mean((np.array(values) - targets) ** 2))


@pytest.mark.parametrize("n", [2, 9])
def test_pairwise_energy_hessian_in_closed_form(n):
    problem = build("pairwise_energy", n=n)
    x = problem.point["positions"].numpy()
    energy, hessian = 0.0, np.zeros((n, 3, n, 3))
    for i in range(n):
        for j in range(i):
            d = x[i] - x[j]
            s = d @ d
            energy += 4 * (s**-6 - s**-3)
            first, second = 4 * (-6 * s**-7 + 3 * s**-4), 4 * (42 * s**-8 - 12 * s**-5)
            block = 4 * second * np.outer(d, d) + 2 * first * np.eye(3)
            hessian[i, :, i] += block
            hessian[j, :, j] += block
            hessian[i, :, j] -= block
            hessian[j, :, i] -= block
    func, point = flat(problem, problem.scalar)
    computed = HESSIAN_ENGINES["loop"](func, point)
    assert_close(func(point), np.array([energy]))
    assert_close(computed, hessian.reshape(3 * n, 3 * n))
    # Translation invariance: moving all particles together changes no force.
    assert computed.reshape(3 * n, n, 3).sum(1).abs().max() < 1e-12 * computed.abs().max()


def test_gp_residuals_by_numpy():
    problem = build("gp_residual")
    z = problem.point["inducing_points"].numpy()
    scale = math.exp(problem.point["log_lengthscale"].item())
    constants = {name: t.numpy() for name, t in captured(problem).items()}

    def kernel(a, b):
        return np.exp(-((a[:, None] - b[None, :]) ** 2) / (2 * scale**2))

    covariance = kernel(z, z) + 1e-6 * np.eye(len(z))
    projection = kernel(constants["data"], z) @ np.linalg.inv(covariance)
    residuals = constants["targets"] - projection @ constants["inducing_values"]
    assert scale == pytest.approx(0.75)
    assert_close(problem.function(*inputs(problem)), residuals)
    assert problem.scalar is not None
    assert_close(problem.scalar(*inputs(problem)), residuals @ residuals / 2)


def test_gp_residual_stays_well_conditioned_with_many_inducing_points():
    single, double = (
        batched(*flat(problem, problem.function))
        for dtype in (torch.float32, torch.float64)
        for problem in [build("gp_residual", dtype, n=30, inducing=200)]
    )
    assert 0.1 < double.abs().max() < 10
    assert_close(single, double, 1e-3)


def test_brusselator_rates_and_jacobian_by_the_stencil():
    n = 5
    problem = build("brusselator", n=n)
    u, v = problem.point["concentrations"].numpy()
    diffusion = 0.1 * n**2
    rates, jacobian = np.zeros((2, n, n)), np.zeros((2, n, n, 2, n, n))
    for i in range(n):
        for j in range(n):
            neighbours = [((i + 1) % n, j), (i - 1, j), (i, (j + 1) % n), (i, j - 1)]
            for s, c in enumerate((u, v)):
                rates[s, i, j] = diffusion * (sum(c[site] for site in neighbours) - 4 * c[i, j])
                for a, b in neighbours:
                    jacobian[s, i, j, s, a, b] = diffusion
                jacobian[s, i, j, s, i, j] = -4 * diffusion
            a, b = u[i, j], v[i, j]
            rates[:, i, j] += [1 + a * a * b - 4.4 * a, 3.4 * a - a * a * b]
            jacobian[0, i, j, :, i, j] += [2 * a * b - 4.4, a * a]
            jacobian[1, i, j, :, i, j] += [3.4 - 2 * a * b, -a * a]
    func, x = flat(problem, problem.function)
    assert_close(func(x), rates.ravel())
    assert_close(loop(func, x), jacobian.reshape(2 * n * n, 2 * n * n))


def test_brusselator_starts_at_the_benchmark_state():
    u, v = build("brusselator").point["concentrations"]
    assert_close(u, torch.tensor([0, 22 * 0.1875**1.5, 2.75, 22 * 0.1875**1.5]).expand(4, 4), 1e-7)
    assert_close(v, u.T * 27 / 22)


@pytest.mark.parametrize(("n", "width", "heads"), [(3, 4, 2), (1, 6, 3), (5, 8, 1), (2, 4, 4)])
def test_transformer_block_is_torchs_encoder_layer(n, width, heads):
    problem = build("transformer_block", n=n, width=width, heads=heads)
    layer = torch.nn.TransformerEncoderLayer(
        d_model=width,
        nhead=heads,
        dim_feedforward=4 * width,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        norm_first=True,
        dtype=torch.float64,
    ).eval()
    layer.load_state_dict(captured(problem)["weights"])
    func, x = flat(problem, problem.function)
    reference = flattened(lambda tokens: layer(tokens[None])[0], [(n, width)])
    assert_close(func(x), reference(x).detach())
    assert_close(loop(func, x), loop(reference, x))


def rotation_matrix(axis: str, angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return {
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


@pytest.mark.parametrize("n", [1, 14, 31])
def test_rotation_chain_by_turning_one_point_at_a_time(n):
    problem = build("rotation_chain", n=n)
    angles = problem.point["angles"].tolist()
    expected = []
    for i in range(n):
        distance = (i + 0.5) * 14 / n
        turn = 2 * math.pi * distance
        point = np.array([distance, 0.25 * math.cos(turn), 0.25 * math.sin(turn)])
        for hinge in reversed(range(math.floor(distance) + 1)):
            centre = np.array([hinge, 0, 0])
            matrix = rotation_matrix("yz"[hinge % 2], angles[hinge])
            point = matrix @ (point - centre) + centre
        expected.append(point)
    assert_close(problem.function(*inputs(problem)), np.array(expected))


def test_rotation_chain_points_depend_only_on_the_hinges_before_them():
    func, x = flat(problem := build("rotation_chain", n=28), problem.function)
    jacobian = loop(func, x).reshape(14, 2, 3, 14)
    moved = jacobian.abs().amax(dim=(1, 2)) > 0
    assert torch.equal(moved, torch.ones(14, 14).tril().bool())


def test_neighbour_energy_sums_over_twelve_nearest_neighbours():
    problem = build("neighbour_energy", n=3)
    (positions,) = inputs(problem)
    edge = 3 * 2 ** (1 / 6) * 2**0.5
    between = positions[:, None] - positions
    between -= edge * torch.round(between / edge)
    distances = between.norm(dim=2) + 99 * torch.eye(len(positions))
    nearest = distances.sort(1).values[:, :12]
    # Atoms are displaced by at most 0.05 per coordinate; second neighbours are 1.4 times as far.
    assert nearest.max() < 1.3 < distances.sort(1).values[:, 12].min()
    expected = (4 * (nearest**-12 - nearest**-6)).sum() / 2
    assert_close(problem.function(positions), expected)


def test_neighbour_energy_knows_no_place():
    problem = build("neighbour_energy")
    (positions,) = inputs(problem)
    gradient = torch.func.grad(problem.function)(positions)
    assert gradient.sum(0).abs().max() < 1e-9


def test_convolution_stack_is_that_of_torch_nn():
    problem = build("convolution_stack")
    constants = captured(problem)
    first = torch.nn.Conv2d(1, 3, 3, padding=1).double()
    second = torch.nn.Conv2d(3, 1, 3, padding=1, bias=False).double()
    first.weight.data = constants["weights"]
    first.bias = torch.nn.Parameter(constants["bias"])
    second.weight.data = constants["combined"]
    (image,) = inputs(problem)
    expected = second(first(image[None, None]).tanh())[0, 0]
    assert_close(problem.function(image), expected.detach())


def test_burgers_residual_by_loops():
    problem = build("burgers", n=5)
    old, h = captured(problem)["old"], 1 / 6
    assert_close(old, np.sin(np.pi * h * np.arange(1, 6)))
    u = np.concatenate([[0], np.linspace(0.3, 0.9, 5), [0]])
    expected = [
        u[i]
        - float(old[i - 1])
        + h
        * (u[i] * (u[i + 1] - u[i - 1]) / (2 * h) - 0.01 * (u[i + 1] - 2 * u[i] + u[i - 1]) / h**2)
        for i in range(1, 6)
    ]
    assert_close(problem.function(torch.from_numpy(u[1:-1].copy())), expected)


@pytest.mark.parametrize("name", ["arrow", "finite_elements"])
def test_functions_are_the_gradients_of_their_scalar_forms(name):
    problem = build(name)
    (x,) = inputs(problem)
    assert problem.scalar is not None
    assert_close(problem.function(x), torch.func.grad(problem.scalar)(x))


def test_arrow_hessian_in_closed_form():
    problem = build("arrow", n=6)
    (x,) = inputs(problem)
    expected = torch.diag(2 * x[0] + 3 * x**2)
    expected[0], expected[:, 0] = 2 * x, 2 * x
    assert problem.scalar is not None
    assert_close(torch.func.hessian(problem.scalar)(x), expected)


def test_finite_elements_resist_neither_motion_nor_rotation():
    problem = build("finite_elements", n=3)
    stiffness = captured(problem)["stiffness"]
    assert_close(stiffness, stiffness.T)
    nodes = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)).double()
    rotation = torch.stack([-nodes[:, 1], nodes[:, 0]], 1)
    for motion in (torch.ones(16, 2).double(), rotation):
        (forces,) = tensors(problem.function(motion))
        assert forces.abs().max() < 1e-12
    # Stretched by e in x with free sides: the only stress is e, in x.
    stretched = 1e-4 * torch.stack([nodes[:, 0], -0.3 * nodes[:, 1]], 1)
    (forces,) = tensors(problem.function(stretched))
    forces = forces.reshape(4, 4, 2)
    assert forces[:, :, 1].abs().max() < 1e-10
    assert_close(forces[-1, :, 0].sum(), 3e-4, 1e-3)
