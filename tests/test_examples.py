"""Every example runs and agrees with its independent reference."""

import re
import sys
from pathlib import Path

import pytest

from tests.support.warm_interpreter import run_warm

EXAMPLES = Path(__file__).parent.parent / "examples"
# The bound of the difference from the reference, and a pattern of the other output.
BOUNDS = {
    "vibrations": (2e-3, r"rigid motion: \d\.\de-0[3-9]"),
    "tangent_kernel": (1e-12, r"<Result, verified: jacobian of Sequential"),
    "newton": (1e-5, r"residuals of [45] steps: .*e-0[0-9] \d\.\de-(09|1\d)$"),
    "sparse_newton": (1e-8, r"^1152 unknowns, residuals: .*e-0[0-9], \d\.\de-(09|1\d)$"),
    "laplace": (1e-13, r"surest: log odds -?\d+\.\d+ ± \d+\.\d+"),
}


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(BOUNDS)


@pytest.mark.parametrize("name", BOUNDS)
def test_an_example_agrees_with_its_reference(name: str, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the extra `examples` is not installed")
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    done = run_warm(command, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    bound, pattern = BOUNDS[name]
    (difference,) = re.findall(r"^largest difference: (.*)$", done.stdout, re.MULTILINE)
    assert float(difference) < bound
    assert re.search(pattern, done.stdout, re.MULTILINE), done.stdout
