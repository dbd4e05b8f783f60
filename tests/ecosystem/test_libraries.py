"""Public libraries by the docs' way: one job each, against references that are none of ours.

`make test-ecosystem` makes the environment and runs these tests; elsewhere they are skipped.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from outputs import open_result
from tests.ecosystem import models

pytestmark = pytest.mark.skipif(
    "AUTODIFF_JOBS_ECOSYSTEM" not in os.environ, reason="make test-ecosystem runs them"
)

random = np.random.default_rng(0)
EMBEDDINGS = random.standard_normal((1, 6, 16))
MASK = np.array([[1, 1, 1, 1, 0, 0]])
LINE = np.linspace(0, 1, 8)
BATCHES = (slice(0, 4), slice(4, 8), slice(8, 10))


@dataclass(frozen=True)
class Case:
    """A job with a library.

    Attributes:
        library: The module that must be installed.
        target: The name in `models`.
        arrays: The inputs; the first is the variable.
        keywords: The arguments of a factory, as arrays; None for a target that is no factory.
        output: The output that is chosen.
        operation: The operation.
        tolerance: The largest deviation from the reference, relative to its largest entry.
    """

    library: str
    target: str
    arrays: dict[str, np.ndarray]
    keywords: dict[str, np.ndarray] | None = None
    output: str | None = None
    operation: str = "jacobian"
    tolerance: float = 1e-6
    options: list[str] = field(default_factory=list)


POSITIONS = np.array([[0, 0, 0.22], [0, 1.43, -0.9], [0, -1.43, -0.9]])
CASES = {
    "BERT": Case(
        "transformers",
        "bert",
        {"inputs_embeds": EMBEDDINGS, "attention_mask": MASK},
        {},
        "last_hidden_state",
    ),
    "GPT-2": Case(
        "transformers",
        "gpt2",
        {"inputs_embeds": EMBEDDINGS, "labels": random.integers(0, 50, (1, 6))},
        {},
        "loss",
        "hessian",
        # The loss of transformers is computed in single precision.
        1e-3,
    ),
    "Llama": Case(
        "transformers",
        "llama",
        {"inputs_embeds": EMBEDDINGS},
        {},
        "logits",
        # Its norm is computed in single precision, which differences of it show.
        tolerance=1e-3,
    ),
    "timm": Case("timm", "vision_transformer", {"x": random.standard_normal((1, 3, 8, 8))}, {}),
    "GPyTorch": Case(
        "gpytorch",
        "gaussian_process",
        {"x": np.linspace(0.1, 0.9, 5)},
        {"inputs": LINE, "targets": np.sin(6 * LINE)},
        "mean",
    ),
    "torchdiffeq": Case("torchdiffeq", "predator_and_prey", {"y": np.array([1.0, 0.5])}),
    "zuko": Case("zuko", "LogDensity", {"x": random.standard_normal((4, 3))}),
    "e3nn": Case("e3nn", "harmonics", {"x": random.standard_normal((4, 3))}),
    "PyG": Case(
        "torch_geometric",
        "graph_convolution",
        {
            "x": random.standard_normal((4, 3)),
            "edge_index": np.array([[0, 1, 2, 3], [1, 2, 3, 0]]),
        },
        {},
    ),
    "kornia": Case("kornia", "blurred", {"image": random.standard_normal((1, 1, 5, 5))}),
    "dxtb": Case(
        "dxtb",
        "tight_binding",
        {"positions": POSITIONS},
        {"numbers": np.array([8, 1, 1])},
        tolerance=1e-5,
    ),
    "CHGNet": Case(
        "chgnet",
        "crystal",
        {"positions": np.array([[0.05, 0, 0], [2.1, 2.15, 2.08]])},
        {},
        operation="hessian",
    ),
}


def needing(library: str) -> None:
    try:
        importlib.import_module(library)
    # A package may be installed and not work with this torch.
    except Exception as error:
        pytest.skip(f"{library} cannot be imported: {error}")


def run(directory: Path, *options: str) -> np.ndarray:
    command = [sys.executable, "-m", "jobs.run", "function=python", "verify=require", *options]
    ended = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr
    for raw in ("Traceback", "BatchedFallback", "INTERNAL ASSERT"):
        assert raw not in ended.stderr
    with open_result(ended.stdout.splitlines()[-1]) as result:
        return np.asarray(result[...])


def options_of(case: Case, directory: Path) -> list[str]:
    np.savez(directory / "point.npz", **case.arrays)  # pyright: ignore[reportArgumentType]
    options = [f"op={case.operation}", f"function.target={models.__file__}:{case.target}"]
    options += ["inputs=numpy", "inputs.path=point.npz", *case.options]
    if case.output is not None:
        options.append(f"function.output={case.output}")
    if case.keywords is not None:
        options.append("function.factory=true")
        for name, array in case.keywords.items():
            np.save(directory / f"{name}.npy", array)
            options.append(f"function.keywords.{name}={{source: numpy, path: {name}.npy}}")
    return options


def function_of(case: Case) -> Callable[[np.ndarray], torch.Tensor]:
    """Return the library's function of its variable alone, in double precision."""
    torch.manual_seed(0)
    target = getattr(models, case.target)
    keywords = {k: torch.from_numpy(v) for k, v in (case.keywords or {}).items()}
    is_made = case.keywords is not None or isinstance(target, type)
    function: Any = target(**keywords) if is_made else target
    if isinstance(function, torch.nn.Module):
        function = function.double().eval()
    arrays = {name: torch.from_numpy(array) for name, array in case.arrays.items()}
    (name, *_) = arrays

    def evaluate(x: torch.Tensor) -> torch.Tensor:
        given = {**arrays, name: x}
        is_named = isinstance(function, torch.nn.Module) and (len(given) > 1 or "embeds" in name)
        value = function(**given) if is_named else function(*given.values())
        return value if case.output is None else getattr(value, case.output)

    if case.operation == "jacobian":
        return lambda x: evaluate(torch.from_numpy(x)).detach().reshape(-1)

    def gradient(x: np.ndarray) -> torch.Tensor:
        point = torch.from_numpy(x).requires_grad_()
        return torch.autograd.grad(evaluate(point), point)[0].reshape(-1)

    return gradient


def by_differences(function: Callable[[np.ndarray], torch.Tensor], x: np.ndarray) -> np.ndarray:
    """Return central differences of fourth order, column by column."""
    columns = []
    for place in np.ndindex(x.shape):

        def at(steps: float, place: tuple[int, ...] = place) -> np.ndarray:
            moved = x.astype(float).copy()
            moved[place] += steps * 1e-3
            return function(moved).numpy()

        columns.append((8 * (at(1) - at(-1)) - (at(2) - at(-2))) / 12e-3)
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("name", CASES)
def test_a_job_agrees_with_differences_of_the_library(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    needing(case.library)
    found = run(tmp_path, *options_of(case, tmp_path))
    (variable, *_) = case.arrays.values()
    expected = by_differences(function_of(case), variable)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < case.tolerance * np.abs(expected).max()


@pytest.mark.parametrize(
    ("operator", "op"),
    [
        ("HessianLinearOperator", "hessian"),
        ("GGNLinearOperator", "ggn"),
        ("GGNLinearOperator", "fisher.kind=true"),
        ("EFLinearOperator", "fisher"),
    ],
)
@pytest.mark.parametrize(("loss", "reduction"), [("mse", "mean"), ("cross_entropy", "sum")])
def test_a_curvature_matrix_agrees_with_the_operator_of_curvlinops(
    operator: str, op: str, loss: str, reduction: str, tmp_path: Path
) -> None:
    needing("curvlinops")
    import curvlinops

    x, label = random.standard_normal((10, 3)), random.standard_normal((10, 2))
    label = random.integers(0, 2, 10) if loss == "cross_entropy" else label
    np.savez(tmp_path / "data.npz", x=x, label=label)
    torch.manual_seed(0)
    network = models.Network().double()
    options = [f"op={op}"] if "=" not in op else ["op=fisher", op]
    options += [f"function.target={models.__file__}:Network", "wrt=params", f"loss={loss}"]
    options += [f"loss.reduction={reduction}", "loss.batch_size=4"]
    found = run(tmp_path, *options, "inputs=numpy", "inputs.path=data.npz")
    data = [(torch.from_numpy(x[rows]), torch.from_numpy(label[rows])) for rows in BATCHES]
    losses = {"mse": torch.nn.MSELoss, "cross_entropy": torch.nn.CrossEntropyLoss}
    parameters: Any = list(network.parameters())
    matrix = getattr(curvlinops, operator)(
        network, losses[loss](reduction=reduction), parameters, data
    )
    expected = (matrix @ torch.eye(len(found), dtype=torch.float64)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)
