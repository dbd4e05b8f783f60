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


def test_a_slow_function_is_evaluated_few_times_at_each_of_many_points(
    directory: Path, run_job: Callable[..., Result]
) -> None:
    (directory / "slow.py").write_text(FUNCTION)
    (directory / "branching.py").write_text(
        "from slow import layer\ndef f(x): return layer(x) if x[0] > 0 else layer(-x)\n"
    )
    # How many rows are measured at once depends on the load of the machine.
    target = ("function=python", "function.target=branching:f", "chunk_size=3")
    values = "inputs.values.x=[[0.3,0.5,0.9],[1.2,0.4,0.7],[0.6,0.8,1.1]]"
    result = run_job("op=jacobian", *target, "inputs=constants", values, "points=leading")
    assert result.verdict.state == "verified"
    # At each point its value, the graph of its rows, that of the check, a step forth and one back,
    # and dual numbers; at one of them the layout of the rows, and the stages within the function.
    assert len((directory / "calls").read_text()) == 3 * 6 + 2
