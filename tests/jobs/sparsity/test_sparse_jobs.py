"""Jobs of sparse matrices: equal to the dense ones, verified, resumed, refused."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from autodiff_core.sparse import Colouring, SparsityPattern, colour, detect_sparsity
from jobs.errors import ContradictedError, JobError
from jobs.report import main as report
from jobs.sparsity import detection
from outputs import open_result, open_sparse_result, verify_result
from outputs.merge import main as merge
from tests.support.processes import committed, start_job, wait_for

CASES = [
    ("jacobian", "brusselator", ("function.n=6",)),
    ("hessian", "rosenbrock", ("function.n=30",)),
    ("hessian", "neighbour_energy", ("function.n=3",)),
    ("jacobian", "convolution_stack", ("function.n=13",)),
    ("jacobian", "burgers", ("function.n=40",)),
    ("jacobian", "arrow", ("function.n=40",)),
    ("hessian", "arrow", ("function.n=40",)),
    ("jacobian", "finite_elements", ("function.n=6",)),
    ("hessian", "finite_elements", ("function.n=6",)),
]
OWN = """
import os, time
import torch

def point():
    return torch.linspace(0.5, 1.5, 30, dtype=torch.float64)

def slow(x):
    time.sleep(float(os.environ.get("SECONDS", "0")))
    return torch.cat([x[:1], (x[1:] - x[:-1] ** 2) * x[1:]])

def branches(x):
    return x**2 if x.sum() > 10 else x * x.roll(1)

def pairs(x):
    distances = (x[:, None] - x).abs().detach()
    return torch.nonzero(distances.triu(1) * (distances < 0.1), as_tuple=True)

near = pairs(point())

def energy_given(x):
    return (1 / (x[near[0]] - x[near[1]]) ** 2).sum()

def energy_inside(x):
    first, second = pairs(x)
    return (1 / (x[first] - x[second]) ** 2).sum()

def forces_inside(x):
    x.requires_grad_()
    energy = energy_inside(x)
    if energy.isnan().item():
        raise ValueError(x)
    return -torch.autograd.grad(energy, x, create_graph=True)[0]

def constant_for_autograd(x):
    return torch.from_numpy(x.detach().numpy() ** 2) + 0 * x

def undefined(x):
    return x[1:] / (x[:-1] - x[0])
"""


@pytest.fixture
def own(directory: Path) -> Callable[..., tuple[str, ...]]:
    (directory / "own.py").write_text(OWN)

    def options(name: str, *more: str) -> tuple[str, ...]:
        target = ("op=jacobian", "function=python", f"function.target=./own.py:{name}")
        return (*target, "function.point=./own.py:point", *more)

    return options


@pytest.mark.parametrize(("operation", "problem", "sizes"), CASES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_sparse_matrix_is_the_dense_one(
    run_sparse: Callable[..., Path],
    operation: str,
    problem: str,
    sizes: tuple[str, ...],
    dtype: str,
) -> None:
    options = (f"op={operation}", f"function={problem}", *sizes, f"dtype={dtype}")
    with open_result(run_sparse(*options, "strategy=reverse-loop")) as dense:
        expected, rows, columns = dense[:], dense.rows, dense.columns
    path = run_sparse(*options, "sparsity=auto")
    with open_sparse_result(path) as result:
        found = result.as_scipy().toarray()
        assert (result.rows, result.columns) == (rows, columns)
        record = result.execution
    assert (
        np.abs(found - expected).max()
        <= (1e-12 if dtype == "float64" else 2e-4) * np.abs(expected).max()
    )
    assert record["verification"]["lines_checked"] == sum(expected.shape)
    assert record["sparsity"]["colours"] < min(expected.shape)
    assert verify_result(path).ok
    assert sorted(each.name for each in path.parent.iterdir()) == ["result.h5", "status.json"]


@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode", "forward-loop"])
def test_every_strategy_computes_the_products(
    run_sparse: Callable[..., Path], strategy: str
) -> None:
    options = ("op=jacobian", "function=arrow", "function.n=12", "sparsity=auto", "chunk_size=1")
    with open_sparse_result(run_sparse(*options, f"strategy={strategy}")) as result:
        assert result.kind == "bidirectional"
        found = result.as_scipy().toarray()
    x = 1 + np.sin(np.arange(12)) / 2
    expected = np.diag(2 * x[0] + 3 * x**2)
    expected[0], expected[:, 0] = 2 * x, 2 * x
    assert np.allclose(found, expected)


def test_devices_share_the_products(run_sparse: Callable[..., Path]) -> None:
    options = ("op=jacobian", "function=convolution_stack", "function.n=9", "sparsity=auto")
    path = run_sparse(*options, "strategy=vectorize", "chunk_size=4", "devices=cpu:2")
    with open_sparse_result(path) as result:
        (products,) = result.execution["products"]
        assert len(products["workers"]) == 2
    assert verify_result(path).ok


def test_shards_divide_the_products(
    command_line: Callable[..., Any], run_sparse: Callable[..., Path]
) -> None:
    options = ("op=jacobian", "strategy=vectorize", "function=convolution_stack", "function.n=9")
    swept = command_line("--multirun", *options, "sparsity=auto", "shards=3", "shard=range(3)")
    assert swept.code == 0, swept.err
    (products,) = Path("runs").glob("*/products-by-columns")
    assert merge([str(products), "-o", str(products / "result.h5")]) == 0
    finished = command_line(*options, "sparsity=auto")
    assert finished.code == 0, finished.err
    assert verify_result(finished.result).ok
    whole = run_sparse(*options, "sparsity=auto", "runs=whole")
    with open_sparse_result(finished.result) as found, open_sparse_result(whole) as expected:
        assert found.fingerprint == expected.fingerprint
        assert np.allclose(found.as_scipy().toarray(), expected.as_scipy().toarray(), rtol=1e-14)


def test_output_options_hold(run_sparse: Callable[..., Path]) -> None:
    options = ("op=jacobian", "function=burgers", "function.n=20", "sparsity=auto")
    path = run_sparse(*options, "output.dtype=float32", "output.compression=gzip")
    with open_sparse_result(path) as result:
        assert result.dtype == "float32"
    assert verify_result(path).ok


def test_a_pattern_or_colouring_is_read_from_a_file(
    run_sparse: Callable[..., Path], resolved: Callable[..., Any]
) -> None:
    options = ("op=jacobian", "function=burgers", "function.n=20")
    job = resolved(*options)
    pattern = detect_sparsity(job.function.function, job.inputs)
    pattern.save("pattern.npz")
    colour(pattern, kind="row").save("colouring.npz")
    kinds = {}
    for name in ("pattern", "colouring"):
        with open_sparse_result(run_sparse(*options, f"sparsity={name}.npz")) as result:
            kinds[name] = result.kind
            assert np.array_equal(result.pattern[1], pattern.indices)
    assert kinds == {"pattern": "column", "colouring": "row"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("op=jacobian", "function=mlp", "function.n=8"), "of the entries may differ from zero"),
        (("op=jacobian", "function=burgers", "function.n=4"), "entries may differ|would be needed"),
    ],
)
def test_where_it_does_not_pay_the_dense_job_runs(
    run_sparse: Callable[..., Path], said: Any, options: tuple[str, ...], reason: str
) -> None:
    path = run_sparse(*options, "sparsity=auto")
    with open_result(path) as result:
        told = result.execution["dense_because"]
    assert any(part in told for part in reason.split("|"))
    assert told in said.getvalue()


def test_detection_that_takes_too_long_gives_way_to_the_dense_job(
    run_sparse: Callable[..., Path], said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "DETECTION_SECONDS", 0.0)
    path = run_sparse("op=hessian", "function=rosenbrock", "function.n=100", "sparsity=auto")
    with open_result(path) as result:
        assert "not found within 0 seconds" in result.execution["dense_because"]
    assert "not found within 0 seconds" in said.getvalue()


def test_a_list_of_neighbours_built_inside_gives_the_pattern_of_one_that_is_given(
    run_sparse: Callable[..., Path], own: Callable[..., tuple[str, ...]], said: Any
) -> None:
    found = {}
    for name in ("energy_given", "energy_inside", "forces_inside"):
        operation = "jacobian" if name == "forces_inside" else "hessian"
        options = (*own(name, "sparsity=auto", f"op={operation}"), "chunk_size=1")
        with open_sparse_result(run_sparse(*options)) as result:
            assert result.verdict.state == "verified"
            found[name] = result.as_scipy().toarray()
            frozen = result.execution["sparsity"]["frozen"]
            assert any("nonzero at" in each and "own.py:17" in each for each in frozen) == (
                name != "energy_given"
            )
            if frozen:
                assert f"it holds {frozen[0]}" in said.getvalue()
    assert np.array_equal(found["energy_given"], found["energy_inside"])
    assert np.allclose(found["energy_given"], -found["forces_inside"])
    assert 0 < np.count_nonzero(found["energy_given"]) < 200


def test_an_entry_that_the_pattern_misses_fails_verification(
    run_sparse: Callable[..., Path], resolved: Callable[..., Any]
) -> None:
    options = ("op=jacobian", "function=burgers", "function.n=20")
    job = resolved(*options)
    whole: Any = detect_sparsity(job.function.function, job.inputs).to_scipy().tolil()
    whole[7, 8] = False
    lacking = scipy.sparse.csr_array(whole)
    lacking.eliminate_zeros()
    SparsityPattern.from_scipy(lacking).save("lacking.npz")
    with pytest.raises(JobError, match=r"rows of the sparse matrix, such as \d+, disagree"):
        run_sparse(*options, "sparsity=lacking.npz")
    assert not list(Path("runs").glob("*/result.h5"))


def test_a_pattern_of_other_branches_fails_verification(
    run_sparse: Callable[..., Path], own: Callable[..., tuple[str, ...]]
) -> None:
    run_sparse(*own("branches", "sparsity=auto"))
    diagonal = SparsityPattern.from_scipy(scipy.sparse.eye_array(30))
    diagonal.save("diagonal.npz")
    run_sparse(*own("branches", "sparsity=diagonal.npz"))
    np.save("low.npy", np.linspace(0, 0.1, 30))
    other = [each for each in own("branches", "sparsity=diagonal.npz") if "point=" not in each]
    with pytest.raises(JobError, match="of the sparse matrix"):
        run_sparse(*other, "inputs=numpy", "inputs.path=low.npy")


def test_a_matrix_without_entries_is_compared_with_differences(
    run_sparse: Callable[..., Path], own: Callable[..., tuple[str, ...]]
) -> None:
    with pytest.raises(ContradictedError, match="detach"):
        run_sparse(*own("constant_for_autograd", "sparsity=auto"))
    (path,) = Path("runs").glob("*/result.h5")
    with open_sparse_result(path) as result:
        assert result.entries == 0
        assert result.verdict.state == "contradicted"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("sparsity=maybe",), "sparsity=maybe: valid are none, auto and the .npz file"),
        (("sparsity=none.npz",), "sparsity=none.npz: there is no such file"),
        (("sparsity=text.npz",), "sparsity=text.npz: "),
        (
            ("sparsity=small.npz",),
            "the pattern is of a matrix of 3 x 3, and this matrix has 20 x 20",
        ),
        (("sparsity=star.npz",), "a star colouring is for Hessians"),
        (("sparsity=auto", "op=jvp"), "op=jvp: a sparse matrix goes with op=jacobian"),
        (("sparsity=auto", "shard=0/4", "strategy=vectorize"), "valid are up to 3 shards"),
        (("sparsity=auto", "verify=sample"), "verify=sample: a sparse matrix"),
        (("sparsity=auto", "dtype=complex64"), "dtype=complex64: a sparse matrix"),
    ],
)
def test_mistakes_are_reported(
    command_line: Callable[..., Any], directory: Path, options: tuple[str, ...], message: str
) -> None:
    Path("text.npz").write_text("no archive")
    SparsityPattern.from_scipy(np.eye(3)).save("small.npz")
    colour(SparsityPattern.from_scipy(np.eye(20)), symmetric=True).save("star.npz")
    given = ("op=jacobian", "function=burgers", "function.n=20", *options)
    finished = command_line(*{each.partition("=")[0]: each for each in given}.values())
    assert finished.code == 1
    assert message in finished.err
    assert "Traceback" not in finished.err


def test_a_finished_one_is_left_alone_and_replaced_when_asked(
    run_sparse: Callable[..., Path], said: Any
) -> None:
    options = ("op=jacobian", "function=burgers", "function.n=20", "sparsity=auto")
    path = run_sparse(*options)
    before = path.stat()
    assert run_sparse(*options) == path
    assert "finished already" in said.getvalue()
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert run_sparse(*options, overwrite=True) == path
    assert path.stat().st_ino != before.st_ino
    assert verify_result(path).ok


def test_a_killed_one_continues(
    own: Callable[..., tuple[str, ...]],
    directory: Path,
    command_line: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = own("slow", "sparsity=auto", "strategy=forward-loop", "chunk_size=1", "verify=off")

    products = "runs/*/products-by-columns/result.h5.part"
    job = start_job(*options, SECONDS="0.7")
    wait_for(lambda: committed(directory, products) >= 1, job)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    assert committed(directory, products) >= 1
    monkeypatch.setenv("SECONDS", "0")
    again = command_line(*options)
    assert again.code == 0, again.err
    assert "of an earlier start" in again.out
    with open_sparse_result(again.result) as result:
        (record,) = result.execution["products"]
        assert record["lines_resumed"] >= 1
        x = result.points["x"]
        found = result.as_scipy().toarray()
    expected = np.diag(np.r_[1, 2 * x[1:] - x[:-1] ** 2]) + np.diag(-2 * x[:-1] * x[1:], -1)
    assert np.allclose(found, expected)


def test_entries_that_are_not_finite(
    run_sparse: Callable[..., Path], own: Callable[..., tuple[str, ...]]
) -> None:
    with open_sparse_result(
        run_sparse(*own("undefined", "sparsity=auto", "verify='off'"))
    ) as result:
        assert result.execution["nonfinite"]["count"] > 0
    with pytest.raises(JobError, match=r"entries .*not finite, the first at row \d+, column 0"):
        run_sparse(
            *own("undefined", "sparsity=auto", "verify='off'", "nonfinite=fail", "runs=other")
        )


def test_results_are_reported_and_compared(
    run_sparse: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for strategy in ("vectorize", "forward-mode"):
        options = ("op=jacobian", "function=burgers", "function.n=20", "sparsity=auto")
        run_sparse(*options, f"strategy={strategy}")
    assert report(["runs", "--csv", "report.csv"]) == 0
    assert "20 x 20 float64, 58 entries" in Path("report.csv").read_text()
    assert "agree" in capsys.readouterr().out


def test_the_colouring_is_kept_while_it_is_needed(
    run_sparse: Callable[..., Path], resolved: Callable[..., Any]
) -> None:
    job = resolved("op=jacobian", "function=burgers", "function.n=20", "sparsity=auto", "plan=true")
    assert run_sparse(
        *("op=jacobian", "function=burgers", "function.n=20", "sparsity=auto"), plan_only=True
    )
    kept = job.paths.result.with_name("colouring.npz")
    assert Colouring.load(kept).colours == 3
