"""The first steps of a new user, from a clean clone in a fresh virtual environment.

Slow, because everything is installed: `make journeys` runs it, and `make test` after the suite.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.test_documentation import ACTIVATION, steps

ROOT = Path(__file__).parent.parent
Run = Callable[..., str]

pytestmark = [
    pytest.mark.slow,
    # One process makes the clone and uses it for all of these tests.
    pytest.mark.xdist_group("journeys"),
    pytest.mark.skipif(
        os.environ.get("AUTODIFF_JOBS_JOURNEYS") != "1",
        reason="installs into a fresh environment; make journeys runs it",
    ),
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clone the last commit and run the first command of the README."""
    folder = tmp_path_factory.mktemp("newcomer") / "autodiff-jobs"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    environment = {key: value for key, value in os.environ.items() if key != "MAKEFLAGS"}
    done = subprocess.run(
        ["make", "--no-print-directory", "run"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path(done.stdout.splitlines()[-1]).is_relative_to(folder / "runs")
    return folder


@pytest.fixture
def run(clone: Path, tmp_path: Path) -> Run:
    """Return a function that runs a command in a user's directory, in the environment."""
    environment = {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        "PATH": f"{clone / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(clone / ".venv"),
    }

    def line(*words: str) -> str:
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    assert Path(line("python", "-c", "import sys; print(sys.prefix)").strip()) == clone / ".venv"
    return line


def test_by_the_readme_alone(clone: Path, run: Run, tmp_path: Path) -> None:
    done = 0
    for kind, body in steps((clone / "README.md").read_text()):
        if kind.endswith(".py"):
            (tmp_path / kind).write_text(body)
        elif kind == "python":
            run("python", "-c", body)
            done += 1
        elif kind == "bash":
            for line in body.splitlines():
                words = shlex.split(line, comments=True)
                if words[0] != "make" and line != ACTIVATION:
                    run(*words)
                    done += 1
    assert done >= 6
    assert len(list(tmp_path.glob("runs/*/result.h5"))) >= 6


ENERGY = """
import torch

def energy(x, weights):
    return (weights * (torch.cosh(x) + x**2)).sum()
"""

EIGENVALUES = """
import sys
import numpy as np
from outputs import open_result

with open_result(sys.argv[1]) as result:
    block = result.block("x", "x")
    print(*np.linalg.eigvalsh(block)[::-1][:3])
"""


def test_an_own_function_to_its_largest_eigenvalues(run: Run, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, weights = random.standard_normal(40), random.uniform(1, 2, 40)
    np.savez(tmp_path / "point.npz", x=x, weights=weights)
    (tmp_path / "my_energy.py").write_text(ENERGY)
    out = run(
        *("python", "-m", "jobs.run", "op=hessian", "function=python"),
        *("function.target=./my_energy.py:energy", "inputs=numpy", "inputs.path=point.npz"),
    )
    printed = run("python", "-c", EIGENVALUES, out.splitlines()[-1])
    expected = np.sort(weights * (np.cosh(x) + 2))[::-1][:3]
    np.testing.assert_allclose([float(word) for word in printed.split()], expected, rtol=1e-12)


NETWORK = """
from torch import nn

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))

    def forward(self, x):
        return self.body(x)
"""

WEIGHTS = """
import torch
from network import Network
from safetensors.torch import save_file

torch.manual_seed(3)
net = Network()
save_file(net.state_dict(), "weights.safetensors")
x = torch.linspace(-1, 1, 20).reshape(4, 5)
torch.save(x, "x.pt")
"""

COMPARE = """
import sys
import torch
from network import Network
from safetensors.torch import load_file
from torch.func import functional_call, jacrev

from outputs import open_result

net = Network().double()
net.load_state_dict(load_file("weights.safetensors"))
parameters = {name: parameter.detach() for name, parameter in net.named_parameters()}
x = torch.load("x.pt").double()
expected = jacrev(lambda p: functional_call(net, p, (x,)))(parameters)
for path in sys.argv[1:]:
    with open_result(path) as result:
        assert [tensor.name for tensor in result.columns] == list(parameters)
        for name in parameters:
            block = torch.from_numpy(result.block("output", name))
            torch.testing.assert_close(block, expected[name], rtol=1e-10, atol=1e-12)
print("agree")
"""


def test_an_own_module_with_its_weights_by_two_strategies(
    clone: Path, run: Run, tmp_path: Path
) -> None:
    extra = ("-c", str(clone / "constraints.txt"), f"{clone}[plot]")
    run("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *extra)
    (tmp_path / "network.py").write_text(NETWORK)
    run("python", "-c", WEIGHTS)
    job = (
        *("python", "-m", "jobs.run", "op=jacobian", "function=python", "wrt=params"),
        *("function.target=./network.py:Network", "function.weights=weights.safetensors"),
        *("inputs=torch", "inputs.path=x.pt"),
    )
    paths = [
        run(*job, f"strategy={strategy}").splitlines()[-1]
        for strategy in ("vectorize", "forward-mode")
    ]
    assert run("python", "-c", COMPARE, *paths).strip() == "agree"
    run("python", "-m", "outputs.plot", paths[0])
    (picture,) = {*Path(paths[0]).parent.glob("*.png"), *tmp_path.glob("*.png")}
    require_picture(picture)
    run("python", "-m", "jobs.report", "runs", "--html", "report.html")
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("the report is looked at by chromium, which is not installed")
    look_at = (
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,1600"),
        *("--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'browser'}"),
    )
    page = (tmp_path / "report.html").as_uri()
    shown = run(*look_at, "--dump-dom", page)
    for word in ("Network", "vectorize", "forward-mode", "<svg", "agree"):
        assert word in shown, word
    run(*look_at, f"--screenshot={tmp_path / 'report.png'}", page)
    require_picture(tmp_path / "report.png")


def require_picture(path: Path) -> None:
    """Check that a picture shows something: it has many colours and a sensible size."""
    image = pytest.importorskip("matplotlib.image").imread(path)
    assert min(image.shape[:2]) > 200
    assert len(np.unique(image.reshape(-1, image.shape[2]), axis=0)) > 50


def test_the_clone_is_what_was_committed(clone: Path) -> None:
    assert shutil.which("git")
    status = ["git", "status", "--porcelain"]
    done = subprocess.run(status, cwd=clone, capture_output=True, text=True, check=True)
    assert done.stdout == ""
