"""How often a job of few lines evaluates a function that takes long."""

from collections.abc import Callable
from pathlib import Path

import pytest

from outputs import Result

FUNCTION = """
import time
from pathlib import Path

def layer(x):
    with open("calls", "a") as file:
        file.write("x")
    time.sleep(0.2)
    return (x.sin().cumsum(0) / len(x) * x).tanh()

def energy(x): return layer(x).square().sum()
"""


@pytest.mark.parametrize(("dtype", "expected"), [("float64", 4), ("float32", 5)])
@pytest.mark.parametrize(("operation", "name"), [("jacobian", "layer"), ("hessian", "energy")])
def test_a_slow_function_is_evaluated_few_times_beside_the_blocks(
    directory: Path,
    run_job: Callable[..., Result],
    operation: str,
    name: str,
    dtype: str,
    expected: int,
) -> None:
    (directory / "slow.py").write_text(FUNCTION)
    target = ("function=python", f"function.target=slow:{name}")
    point = ("inputs=constants", "inputs.values.x=[0.3,0.5,0.9,1.2]")
    result = run_job(f"op={operation}", *target, *point, f"dtype={dtype}")
    assert result.verdict.state == "verified"
    # The graph of the rows; a step forth and one back; dual numbers; in single precision the point
    # in double precision, too.
    assert len((directory / "calls").read_text()) == expected
