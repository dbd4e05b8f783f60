"""`jobs.compute` against torch's own derivatives, for each form of function and point."""

import functools
import inspect
import logging
import random
import signal
import sys
import threading
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy import sqrt
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacrev

import jobs
from jobs.calls.options import Options
from jobs.configuration.schema import JobConfig
from outputs import VerificationState

STIFFNESS = 2.0


def energy(positions: Tensor) -> Tensor:
    bonds = positions[1:] - positions[:-1]
    return STIFFNESS * ((bonds.norm(dim=1) - 1) ** 2).sum()


class Scaled:
    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, x: Tensor) -> Tensor:
        return self.scale * x**3

    def method(self, x: Tensor) -> Tensor:
        return self.scale * x.sin()


def closure(scale: float) -> Callable[[Tensor], Tensor]:
    return lambda x: scale * x.cos()


CALLABLES = {
    "lambda without source": eval("lambda x: x ** 3"),
    "partial": functools.partial(lambda power, x: x**power, 3),
    "instance": Scaled(1.0),
    "method": Scaled(2.0).method,
    "closure": closure(3.0),
    "builtin": torch.tanh,
    "imported ufunc": lambda x: x * float(sqrt(2.0)),
    "compiled": torch.compile(energy, backend="eager"),
    "module": nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double(),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_every_kind_of_callable_is_differentiated(
    kind: str, compute: Any, positions: Tensor
) -> None:
    result = compute("jacobian", CALLABLES[kind], positions)
    expected = jacrev(energy if kind == "compiled" else CALLABLES[kind])(positions)
    np.testing.assert_allclose(
        result[...], expected.detach().reshape(result.shape).numpy(), atol=1e-12
    )
    assert result.verdict.state is VerificationState.VERIFIED


def of_two(x: Tensor, y: Tensor) -> Tensor:
    return (x[:, None] * y**2).sum() + x.prod()


@pytest.mark.parametrize(
    "form", [tuple, list, lambda both: dict(zip("yx", both[::-1], strict=True))]
)
@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_every_form_of_point(form: Any, kind: Any, compute: Any) -> None:
    x, y = kind([1.0, 2.0, 3.0]), kind([0.5, -1.0])
    result = compute("hessian", of_two, form((x, y)))
    whole = torch.cat([torch.as_tensor(x), torch.as_tensor(y)]).double()
    expected = hessian(lambda both: of_two(both[:3], both[3:]))(whole)
    np.testing.assert_allclose(result[...], expected.numpy(), atol=1e-12)
    assert [each.name for each in result.columns] == ["x", "y"]


def test_derivatives_by_the_parameters_of_a_module(compute: Any) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    batch = torch.randn(5, 3)
    result = compute(
        "jacobian",
        module,
        {"x": batch},
        wrt="params",
        strategy="vectorize",
        output={"dtype": "float32"},
    )
    parameters = {name: each.detach().double() for name, each in module.named_parameters()}
    state = {
        name: each.double() for name, each in module.named_buffers() if each.is_floating_point()
    }

    def outputs(parameters: dict[str, Tensor]) -> Tensor:
        return functional_call(module, {**parameters, **state}, (batch.double(),))

    blocks = jacrev(outputs)(parameters)
    expected = torch.cat([each.flatten(2) for each in blocks.values()], dim=2).flatten(0, 1)
    np.testing.assert_allclose(result[...], expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert result.dtype == np.float32
    # The module of the caller is as it was.
    assert all(each.requires_grad and each.dtype == torch.float32 for each in module.parameters())


def test_a_module_is_taken_in_the_mode_in_which_it_is(compute: Any, capsys: Any) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).double()
    batch = torch.randn(6, 3, dtype=torch.float64)
    before = {name: each.clone() for name, each in module.state_dict().items()}
    found = {}
    for mode in (True, False):
        module.train(mode)
        result = compute("jacobian", module, batch, progress="lines")
        assert ("training mode" in capsys.readouterr().out) is mode

        def outputs(x: Tensor) -> Tensor:
            own = {k: v.clone() for k, v in module.state_dict().items()}
            return functional_call(module, own, (x,))

        expected = jacrev(outputs)(batch).reshape(18, 18)
        np.testing.assert_allclose(result[...], expected.detach().numpy(), atol=1e-10)
        found[mode] = result.path
    assert found[True] != found[False]
    assert all(torch.equal(before[name], each) for name, each in module.state_dict().items())


@pytest.mark.parametrize("loss", ["mse", lambda output, label: ((output - label) ** 2).mean()])
def test_a_loss_by_name_or_as_a_function(loss: Any, compute: Any) -> None:
    module = nn.Linear(3, 1).double()
    x, label = torch.randn(8, 3).double(), torch.randn(8, 1).double()
    result = compute("hessian", module, {"input": x, "label": label}, wrt="params", loss=loss)
    ones = torch.cat([x, torch.ones(8, 1)], dim=1)
    np.testing.assert_allclose(result[...], (2 * ones.T @ ones / 8).numpy(), atol=1e-10)


@pytest.mark.parametrize(
    "form", [lambda v: v, lambda v: {"x": v}, lambda v: [v], lambda v: v.numpy()]
)
def test_vectors_are_passed_as_the_point_is(form: Any, compute: Any) -> None:
    x = torch.arange(3.0, dtype=torch.float64)
    vectors = torch.randn(2, 3, dtype=torch.float64)
    result = compute("hvp", lambda x: (x**4).sum(), x, vectors=form(vectors))
    np.testing.assert_allclose(result[...], (12 * x**2 * vectors).numpy(), atol=1e-12)


def test_many_points_and_a_sparse_matrix(compute: Any) -> None:
    points = torch.randn(5, 3, dtype=torch.float64)
    many = compute("jacobian", torch.sin, points, points="leading")
    assert many.shape == (5, 3, 3)
    np.testing.assert_allclose(many[2], np.diag(points[2].cos().numpy()), atol=1e-12)
    sparse = compute("jacobian", lambda x: x**2, torch.arange(6.0), sparsity="auto")
    np.testing.assert_allclose(sparse.as_scipy().toarray(), np.diag(2.0 * np.arange(6)), atol=1e-12)


def test_a_problem_and_an_import_path_have_the_runs_of_the_command(
    compute: Any, command_line: Any, directory: Path, positions: Tensor
) -> None:
    (directory / "springs.py").write_text("def energy(positions): return (positions**4).sum()\n")
    np.save("start.npy", positions.numpy())
    options = ["op=hessian", "strategy=vectorize", "progress=quiet"]
    own = ["function=python", "function.target=./springs.py:energy"]
    first = command_line(*options, *own, "inputs=numpy", "inputs.path=start.npy").result
    second = command_line(*options, "function=rosenbrock", "function.n=4").result
    found = compute("hessian", "./springs.py:energy", positions, strategy="vectorize")
    assert found.path == first
    found = compute("hessian", {"name": "rosenbrock", "n": 4}, strategy="vectorize")
    assert found.path == second


def test_the_options_are_those_of_the_command() -> None:
    names = {*inspect.get_annotations(JobConfig)} - {"op", "function", "plan"}
    # `data` is function.data, which a loss over batches takes.
    assert {*Options.__annotations__} == {*names, "data"}


def test_a_plan_prints_itself_and_writes_nothing(positions: Tensor, directory: Path) -> None:
    planned = jobs.plan("hessian", energy, positions, memory=2**33)
    assert planned.plan is not None
    assert planned.plan.memory_budget == 2**33
    assert "12 rows x 12 columns" in repr(planned)
    assert not planned.is_finished
    assert list(directory.iterdir()) == []
    jobs.compute("hessian", energy, positions, progress="quiet").close()
    again = jobs.plan("hessian", energy, positions)
    assert again.is_finished
    assert "finished already" in repr(again)
    assert again.directory == planned.directory


def test_another_default_dtype_makes_another_job(compute: Any) -> None:
    def function(x: Tensor) -> Tensor:
        return torch.tensor(0.1) * torch.ones(4) * x

    x = torch.ones(4, dtype=torch.float64)
    narrow = compute("jacobian", function, x)
    torch.set_default_dtype(torch.float64)
    try:
        wide = compute("jacobian", function, x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert narrow[0, 0] == torch.tensor(0.1).item()
    assert wide[0, 0] == 0.1
    assert wide.path != narrow.path


def test_another_precision_of_products_makes_another_job(compute: Any) -> None:
    x = torch.ones(4)
    precise = compute("jacobian", torch.sin, x)
    torch.set_float32_matmul_precision("medium")
    try:
        fast = compute("jacobian", torch.sin, x)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert fast.path != precise.path
    assert compute("jacobian", torch.sin, x).path == precise.path


def state_of_the_process() -> dict[str, Any]:
    logger = logging.getLogger("jobs")
    return {
        "handlers of signals": [signal.getsignal(number) for number in (2, 15, 10)],
        "directory": Path.cwd(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "generator": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "random": random.getstate(),
        "gradients": torch.is_grad_enabled(),
        "filters": list(warnings.filters),
        "path": list(sys.path),
        "logging": (logger.level, logger.propagate, list(logger.handlers)),
        "root": (logging.root.level, list(logging.root.handlers)),
    }


@pytest.mark.parametrize("fails", [False, True])
def test_a_call_leaves_the_process_as_it_was(fails: bool, compute: Any, positions: Tensor) -> None:
    from hydra.core.global_hydra import GlobalHydra

    def function(x: Tensor) -> Tensor:
        if fails:
            raise ValueError("no")
        return (x**2).sum()

    with torch.no_grad():
        before = state_of_the_process()
        if fails:
            with pytest.raises(jobs.JobError):
                compute("hessian", function, positions)
        else:
            compute("hessian", function, positions)
        assert state_of_the_process() == before
    assert not GlobalHydra.instance().is_initialized()


def test_a_call_in_a_thread_says_so_once(
    compute: Any, positions: Tensor, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.calls.process._told", set())
    found: dict[int, Any] = {}

    def in_thread(number: int) -> None:
        options = {"progress": "lines"}
        found[number] = compute("hessian", energy, positions * (number + 1), **options)

    threads = [threading.Thread(target=in_thread, args=(number,)) for number in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert capsys.readouterr().out.count("Ctrl-C") == 1
    for number, result in found.items():
        expected = hessian(energy)(positions * (number + 1)).reshape(12, 12)
        np.testing.assert_allclose(result[...], expected.numpy(), atol=1e-12)


def test_a_job_within_a_job_is_refused(compute: Any, positions: Tensor) -> None:
    def outer(x: Tensor) -> Tensor:
        jobs.compute("hessian", energy, x.detach())
        return x.sum()

    with pytest.raises(jobs.JobError, match="cannot be a part of another one"):
        compute("jacobian", outer, positions)


@pytest.mark.parametrize(("verify", "warned"), [("off", False), ("sample", True)])
def test_what_is_not_verified_is_said_unless_it_was_asked_for(
    verify: str, warned: bool, compute: Any, positions: Tensor
) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        result = compute("hessian", energy, positions, verify=verify)
    assert result.verdict.state is not VerificationState.VERIFIED
    said = [each for each in seen if each.category is jobs.VerificationWarning]
    assert len(said) == warned
    assert all(str(result.path) in str(each.message) for each in said)


class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 3


def test_a_contradicted_result_is_an_error_with_the_file(compute: Any, directory: Path) -> None:
    with pytest.raises(jobs.ContradictedError, match=r"result\.h5 is contradicted"):
        compute("jacobian", lambda x: Wrong.apply(x), torch.ones(3))
    (kept,) = directory.glob("runs/*/result.h5")
    assert kept.exists()
    with pytest.raises(jobs.ContradictedError, match=r"result\.h5 is contradicted"):
        jobs.find("runs")[0].result()


def test_verification_that_is_required(compute: Any, positions: Tensor) -> None:
    with pytest.raises(jobs.JobError, match="partly verified"):
        compute("hessian", energy, positions, verify={"mode": "sample", "required": True})


def test_a_notebook_shows_one_line_of_an_error() -> None:
    shown = jobs.ConfigurationError("seed=x: valid is an integer")._render_traceback_()
    assert shown == ["ConfigurationError: seed=x: valid is an integer"]


def test_modules_made_while_the_program_runs(compute: Any, positions: Tensor) -> None:
    made = types.ModuleType("made")
    exec("scale = 2.0\ndef inner(x): return scale * x**2", made.__dict__)
    first = compute("jacobian", lambda x: made.inner(x), positions)
    made.__dict__["scale"] = 3.0
    second = compute("jacobian", lambda x: made.inner(x), positions)
    np.testing.assert_allclose(2 * second[...], 3 * first[...])


def test_a_finished_job_says_that_its_check_was_another(
    positions: Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs.compute("hessian", energy, positions, verify="off", progress="quiet").close()
    jobs.compute("hessian", energy, positions, verify="off").close()
    assert "note: verify" not in capsys.readouterr().out
    result = jobs.compute("hessian", energy, positions)
    assert result.verdict.state == "not verified"
    result.close()
    said = capsys.readouterr().out
    assert "note: verify.mode=probe verify.differences=true: the result was verified with " in said
    assert "with verify.mode=off verify.differences=false, and the verdict is of that check" in said
