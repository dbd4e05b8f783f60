"""Curvature matrices of losses over data, against `torch.func`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from jobs.errors import JobError
from jobs.execution.execute import execute
from jobs.job import Job
from jobs.reporting.terminal import Display
from outputs import Result, open_result
from outputs.merge import main as merge
from tests.jobs.support.own_model import of, user

Resolve = Callable[..., Job]
Run = Callable[..., Result]

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))

class Normed(Net):
    def forward(self, x):
        z = super().forward(x)
        return z - z.mean(dim=0)

class NormedLater(Net):
    def forward(self, x):
        z = super().forward(x)
        return z - z.mean(dim=0) * (x[:, :1] > 4)

class Random(Net):
    def forward(self, x):
        return self.second(nn.functional.dropout(torch.tanh(self.first(x)), 0.5))

class Detached(Net):
    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return self.second(hidden) * (1 + hidden.detach()[:, :2])

def huber(output, label): return torch.sqrt(1 + (output - label)**2).sum()
def absolute(output, label): return (output - label).abs().sum()
def concave(output, label): return -((output - label)**2).sum()
def vector(output, label): return (output - label)**2
def own_loss(theta, x, y): return ((x @ theta - y) ** 2).mean()
"""


@pytest.fixture
def files(model: Path) -> tuple[str, ...]:
    (model / "code" / "model.py").write_text(MODEL)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(11, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(11, 2, generator=generator, dtype=torch.float64)
    np.savez(model / "numbers.npz", x=x.numpy(), label=y.numpy())
    np.savez(model / "classes.npz", x=x.numpy(), label=(np.arange(11) % 2))
    return (*of("Net"), "wrt=params", "inputs=numpy")


def loss_options(kind: str, reduction: str = "mean") -> tuple[str, ...]:
    path = "classes.npz" if kind == "cross_entropy" else "numbers.npz"
    options = (f"inputs.path={path}", f"loss.reduction={reduction}")
    if kind in ("huber", "concave", "absolute", "vector"):
        return (*options, "loss=python", f"loss.target=code/model.py:{kind}")
    return (*options, f"loss={kind}")


def reference(kind: str, reduction: str) -> Callable[..., Tensor]:
    functional = torch.nn.functional
    return {
        "mse": lambda z, t: functional.mse_loss(z, t, reduction=reduction),
        "cross_entropy": lambda z, t: functional.cross_entropy(z, t, reduction=reduction),
        "huber": lambda z, t: torch.sqrt(1 + (z - t) ** 2).sum(),
        "concave": lambda z, t: -((z - t) ** 2).sum(),
    }[kind]


def explicit(job: Job, model: Path, op: str, kind: str, reduction: str) -> Tensor:
    """Return the matrix of the whole data by explicit Jacobians and Hessians."""
    torch.manual_seed(0)
    net = user(job).Net().double()
    names = [name for name, _ in net.named_parameters()]
    given = tuple(parameter.detach() for parameter in net.parameters())
    arrays = np.load(model / ("classes.npz" if kind == "cross_entropy" else "numbers.npz"))
    x, label = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["label"])
    loss = reference(kind, reduction)

    def outputs(*values: Tensor) -> Tensor:
        return functional_call(net, dict(zip(names, values, strict=True)), (x,))

    def losses(*values: Tensor) -> Tensor:
        z = outputs(*values)
        sums = reference(kind, "sum")
        return torch.stack([sums(z[n : n + 1], label[n : n + 1]) for n in range(len(z))])

    def flat(function: Callable[..., Tensor]) -> Tensor:
        parts = torch.func.jacrev(function, argnums=tuple(range(len(given))))(*given)
        count = function(*given).numel()
        return torch.cat([part.reshape(count, -1) for part in parts], dim=1)

    if op == "fisher":
        gradients = flat(losses)
        summands = label.numel() if kind == "mse" else len(x)
        return gradients.T @ gradients / (summands if reduction == "mean" else 1)
    z = outputs(*given)
    hessian = torch.func.hessian(lambda z: loss(z, label))(z).reshape(z.numel(), z.numel())
    return flat(outputs).T @ hessian @ flat(outputs)


@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode"])
@pytest.mark.parametrize(
    ("op", "kind", "reduction"),
    [
        ("ggn", "mse", "mean"),
        ("ggn", "cross_entropy", "sum"),
        ("ggn", "huber", "sum"),
        ("fisher", "mse", "mean"),
        ("fisher", "cross_entropy", "mean"),
        ("fisher", "huber", "sum"),
    ],
)
def test_it_is_the_explicit_matrix(
    op: str,
    kind: str,
    reduction: str,
    strategy: str,
    model: Path,
    files: tuple[str, ...],
    run_job: Run,
    resolved: Resolve,
) -> None:
    options = (f"op={op}", f"strategy={strategy}", *files, *loss_options(kind, reduction))
    options = (*options, "loss.batch_size=4", "chunk_size=10")
    result = run_job(*options)
    job = resolved(*options)
    expected = explicit(job, model, op, kind, reduction)
    np.testing.assert_allclose(result[...], expected, rtol=1e-10, atol=1e-13)
    record = result.execution["verification"]
    assert record["state"] == "verified", record
    assert record["smallest_rayleigh_quotient"] >= 0
    assert {each["state"] for each in result.execution["differences"]} == {"agree"}


@pytest.mark.parametrize("kind", ["mse", "cross_entropy"])
def test_the_true_fisher_matrix_of_a_distribution_is_its_gauss_newton_matrix(
    kind: str, model: Path, files: tuple[str, ...], run_job: Run, resolved: Resolve
) -> None:
    options = ("op=fisher", "strategy=vectorize", *files, *loss_options(kind))
    true = run_job(*options, "fisher.kind=true")
    expected = explicit(resolved(*options), model, "ggn", kind, "mean")
    np.testing.assert_allclose(true[...], expected, rtol=1e-10, atol=1e-13)
    assert run_job(*options).path != true.path


def test_the_fisher_matrix_of_a_function_that_is_its_loss(model: Path, run_job: Run) -> None:
    (model / "code" / "model.py").write_text(MODEL)
    random = np.random.default_rng(0)
    x, y, theta = random.standard_normal((7, 3)), random.standard_normal(7), np.ones(3)
    np.savez(model / "data.npz", theta=theta, x=x, y=y)
    options = ("op=fisher", *of("own_loss"), "loss=own", "wrt.pattern=theta", "inputs=numpy")
    result = run_job(*options, "inputs.path=data.npz", "loss.batch_size=3")
    gradients = 2 * (x @ theta - y)[:, None] * x
    np.testing.assert_allclose(result[...], gradients.T @ gradients / 7, rtol=1e-12)


@pytest.mark.parametrize(
    ("op", "name", "strategy"),
    [
        ("ggn", "Normed", "vectorize"),
        # From the second batch on.
        ("ggn", "NormedLater", "reverse-loop"),
        ("fisher", "NormedLater", "vectorize"),
    ],
)
def test_samples_that_depend_on_one_another_are_differentiated_together(
    op: str, name: str, strategy: str, model: Path, files: tuple[str, ...], run_job: Run
) -> None:
    given = dict(np.load(model / "numbers.npz"))
    given["x"][6:, 0] = 5
    np.savez(model / "numbers.npz", **given)
    options = (f"op={op}", *of(name), *files[2:], *loss_options("mse"), "loss.batch_size=6")
    one, other = (run_job(*options, f"strategy={each}") for each in (strategy, "forward-mode"))
    np.testing.assert_allclose(one[...], other[...], rtol=1e-10, atol=1e-13)
    assert one.verdict.state == "verified"
    assert "all samples of a batch at once" in str(one.execution["fallbacks"])


def test_random_numbers_are_the_same_in_each_product(files: tuple[str, ...], run_job: Run) -> None:
    options = ("op=ggn", *of("Random"), *files[2:], *loss_options("mse"), "loss.batch_size=6")
    one, other = (run_job(*options, f"strategy={each}") for each in ("vectorize", "forward-loop"))
    np.testing.assert_allclose(one[...], other[...], rtol=1e-10, atol=1e-13)
    assert one.verdict.state == "verified"


def test_a_loss_that_is_not_convex_shows_in_the_record(
    files: tuple[str, ...], run_job: Run, resolved: Resolve, quiet: Display
) -> None:
    options = ("op=ggn", "strategy=vectorize", *files, *loss_options("concave", "sum"))
    result = run_job(*options)
    assert result.execution["verification"]["smallest_rayleigh_quotient"] < 0
    assert result.verdict.state == "verified"
    shards = [
        execute(resolved(*options, "runs=parts", f"shard={number}/2"), quiet) for number in (0, 1)
    ]
    assert merge([*map(str, shards), "-o", "merged.h5"]) == 0
    with open_result("merged.h5") as merged:
        assert merged.execution["verification"]["smallest_rayleigh_quotient"] < 0


def test_a_gradient_that_is_stopped_is_seen(files: tuple[str, ...], run_job: Run) -> None:
    options = ("op=ggn", "strategy=vectorize", *of("Detached"), *files[2:], *loss_options("mse"))
    with pytest.raises(JobError, match="contradict"):
        run_job(*options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("op=ggn", *loss_options("absolute", "sum")), "no curvature at these outputs"),
        (("op=ggn", *loss_options("vector", "sum")), "valid is a tensor with one number"),
        (("op=ggn", "inputs.path=numbers.npz"), "op=ggn needs a loss between"),
        (("op=ggn", "loss=own", "inputs.path=numbers.npz"), "the function returns the loss itself"),
        (
            ("op=fisher", "fisher.kind=true", *loss_options("huber", "sum")),
            "known of mse and cross_entropy only",
        ),
        (("op=hessian", "fisher.kind=true", *loss_options("mse")), "the option is for op=fisher"),
        (("op=fisher", "fisher.kind=exact", *loss_options("mse")), "valid are empirical, true"),
        (("op=ggn", "dtype=complex64", *loss_options("mse")), "valid are real dtypes"),
        (("op=ggn", "rows=26", *loss_options("mse")), "the matrix has 26 rows"),
        (("op=ggn", "sparsity=auto", *loss_options("mse")), "sparsity=auto op=ggn"),
        (("op=ggn", "points=leading", *loss_options("mse")), "points=leading"),
        (
            ("op=fisher", *of("own_loss"), "wrt=inputs", "loss=own", "inputs=constants",
             "inputs.values.theta=[1.0]", "inputs.values.x=[[2.0]]", "inputs.values.y=[3.0]"),
            "no samples",
        ),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused(
    change: tuple[str, ...], message: str, files: tuple[str, ...], run_job: Run
) -> None:
    kept = [each for each in files if each.partition("=")[0] not in _names(change)]
    with pytest.raises(JobError, match=message):
        run_job(*kept, *change)


def _names(options: tuple[str, ...]) -> set[Any]:
    return {each.partition("=")[0] for each in options}
