"""Complex inputs stay complex under a real dtype, and so does the matrix."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import JobError
from jobs.execution.execute import execute
from jobs.job import Job
from jobs.reporting.terminal import Display
from outputs import Result, open_sparse_result

Run = Callable[..., Result]
Z = np.array([0.3 + 0.4j, -0.2 + 0.9j, 0.7 - 0.5j])
FUNCTIONS = """
def squares(z): return z.abs() ** 2 + z.real
def product(z): return z * z.sum()
def turned(x): return x * (1 + 2j)
"""
# dy/d(Re z) + i dy/d(Im z) for real y, dy/dz for complex y.
TRUTH = {
    "squares": np.diag(2 * Z + 1),
    "product": np.eye(3) * Z.sum() + np.outer(Z, np.ones(3)),
}


@pytest.fixture
def given(directory: Path) -> Path:
    (directory / "given.py").write_text(FUNCTIONS)
    np.save(directory / "z.npy", Z)
    return directory


def of(name: str, *more: str) -> list[str]:
    target = ["function=python", f"function.target=./given.py:{name}"]
    return ["op=jacobian", *target, "inputs=numpy", "inputs.path=z.npy", *more]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("strategy", ["reverse-loop", "vectorize", "forward-mode", "forward-loop"])
@pytest.mark.parametrize("name", TRUTH)
def test_a_complex_input_stays_complex(
    given: Path, run_job: Run, name: str, strategy: str, dtype: str
) -> None:
    result = run_job(*of(name, f"strategy={strategy}", f"dtype={dtype}"))
    assert result.dtype == {"float64": "complex128", "float32": "complex64"}[dtype]
    figures = result.execution["verification"]
    assert figures["kind"] == "probe"
    assert [each["state"] for each in result.execution["differences"]] == ["agree"]
    np.testing.assert_allclose(result[...], TRUTH[name], atol=10 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("output.dtype=float32", "the matrix is complex"),
        ("points=leading", "points=leading: .* is complex"),
    ],
)
def test_what_would_lose_imaginary_parts_is_refused(
    given: Path, run_job: Run, option: str, message: str
) -> None:
    with pytest.raises(JobError, match=message):
        run_job(*of("squares", option))


def test_a_sparse_matrix_of_complex_outputs(
    given: Path, resolved: Callable[..., Job], quiet: Display
) -> None:
    source = ["inputs=random", "inputs.shapes=[[300]]"]
    target = ["function=python", "function.target=./given.py:turned"]
    job = ["op=jacobian", "sparsity=auto", "strategy=vectorize", *target, *source]
    with open_sparse_result(execute(resolved(*job), quiet)) as result:
        assert result.dtype == "complex128"
        assert result.execution["verification"]["kind"] == "probe"
        np.testing.assert_allclose(result.as_scipy().toarray(), (1 + 2j) * np.eye(300))
