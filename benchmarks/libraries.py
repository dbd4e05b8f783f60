"""Time whole commands on functions made with public libraries, beside the same derivative by hand.

    python benchmarks/libraries.py [--rounds 5] [--only torchsde ...]

For each library that is installed, a job (`python -m jobs.run ...`, verified) and a script that
imports torch, takes the derivative by the fastest way that torch offers for this function, and
writes it by h5py, run by turns as whole processes, each with one thread. The figures are medians:
seconds of the clock, seconds of processor time, and the ratios of the job to the script.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve()


@dataclass(frozen=True)
class Case:
    """A function made with a library.

    Args:
        library: The module that must be installed.
        operation: ``hessian`` or ``jacobian``.
        method: The fastest way by hand: ``rows`` (a pass of reverse mode for each row) or
            ``vmap`` (`torch.func.jacrev`, batched).
        is_at_many: Whether the derivative is taken at each of many points.
    """

    library: str
    operation: str
    method: str
    is_at_many: bool = False


CASES = {
    "stochastic": Case("torchsde", "jacobian", "rows"),
    "controlled": Case("torchcde", "jacobian", "rows"),
    "parallel": Case("torchode", "jacobian", "rows"),
    "cycles": Case("torchode", "jacobian", "rows", is_at_many=True),
    "neural": Case("torchdiffeq", "jacobian", "rows"),
    "crystal": Case("chgnet", "hessian", "rows"),
    "process": Case("gpytorch", "hessian", "rows"),
    "dispersion": Case("tad_dftd4", "hessian", "vmap"),
    "molecule": Case("dxtb", "hessian", "vmap"),
}


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _network(size: int, hidden: int) -> nn.Module:
    torch.manual_seed(1)
    layers = nn.Sequential(nn.Linear(size, hidden), nn.Tanh(), nn.Linear(hidden, size))
    return layers.double().requires_grad_(False)


class _Noisy(nn.Module):
    noise_type, sde_type = "diagonal", "ito"

    def __init__(self) -> None:
        super().__init__()
        self.drift = _network(40, 32)

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        return self.drift(y)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return 0.1 * torch.sigmoid(y)


def stochastic() -> tuple[Callable[..., Tensor], Tensor]:
    """Return the end of a path of a stochastic differential equation, and a start."""
    import torchsde

    rates, times = _Noisy(), torch.linspace(0, 1, 2, dtype=torch.float64)

    def end(y: Tensor) -> Tensor:
        path = torchsde.BrownianInterval(0.0, 1.0, size=(1, 40), dtype=y.dtype, entropy=7)
        return torchsde.sdeint(rates, y[None], times, bm=path, dt=2e-3, method="euler")[-1, 0]

    return end, _random(40, seed=2)


def controlled() -> tuple[Callable[..., Tensor], Tensor]:
    """Return the end of a differential equation that a path controls, and a start."""
    import torchcde

    layers = _network(24, 32)
    turn = _random(24, 24, 3, seed=3) / 5
    points = torchcde.natural_cubic_coeffs(_random(1, 30, 3, seed=4).cumsum(1) / 5)
    path = torchcde.CubicSpline(points)

    def rate(t: Tensor, z: Tensor) -> Tensor:
        return torch.einsum("bi,ijk->bjk", torch.tanh(layers(z)), turn)

    def end(z: Tensor) -> Tensor:
        span = path.interval.to(z.dtype)
        options = {"method": "rk4", "options": {"step_size": 0.25}, "adjoint": False}
        return torchcde.cdeint(X=path, func=rate, z0=z[None], t=span, **options)[0, -1]

    return end, _random(24, seed=5)


def parallel() -> tuple[Callable[..., Tensor], Tensor]:
    """Return the end of a batch of differential equations with steps of their own, and a start."""
    import torchode

    layers = _network(10, 32)
    term = torchode.ODETerm(lambda t, y: layers(y) - y)
    method = torchode.Dopri5(term=term)
    control = torchode.IntegralController(atol=1e-8, rtol=1e-8, term=term)
    solver = torchode.AutoDiffAdjoint(method, control)

    def end(y: Tensor) -> Tensor:
        times = torch.tensor([[0.0, 4.0]] * 4, dtype=y.dtype)
        return solver.solve(torchode.InitialValueProblem(y0=y, t_eval=times)).ys[:, -1]

    return end, _random(4, 10, seed=6)


def cycles() -> tuple[Callable[..., Tensor], Tensor]:
    """Return an oscillator of Van der Pol at six times, and six starts."""
    import torchode

    def rate(t: Tensor, y: Tensor) -> Tensor:
        place, speed = y.unbind(1)
        return torch.stack([speed, (1 - place**2) * speed - place], dim=1)

    term = torchode.ODETerm(rate)
    method = torchode.Tsit5(term=term)
    control = torchode.IntegralController(atol=1e-9, rtol=1e-9, term=term)
    solver = torchode.AutoDiffAdjoint(method, control)

    def path(y: Tensor) -> Tensor:
        times = torch.linspace(0, 2, 6, dtype=y.dtype)[None]
        return solver.solve(torchode.InitialValueProblem(y0=y[None], t_eval=times)).ys[0]

    return path, _random(6, 2, seed=9)


def neural() -> tuple[Callable[..., Tensor], Tensor]:
    """Return the end of a neural differential equation, and a start."""
    from torchdiffeq import odeint

    layers = _network(32, 64)

    def end(y: Tensor) -> Tensor:
        times = torch.linspace(0, 8, 2, dtype=y.dtype)
        return odeint(lambda t, y: layers(y) - y, y, times, method="dopri5", rtol=1e-9, atol=1e-9)[
            -1
        ]

    return end, _random(32, seed=7)


def crystal() -> tuple[Callable[..., Tensor], Tensor]:
    """Return the energy of a crystal by CHGNet, and positions."""
    from chgnet.model import CHGNet
    from pymatgen.core import Lattice, Structure

    model = CHGNet.load(verbose=False, use_device="cpu").double()
    model.composition_model.float()
    lattice = Lattice.from_parameters(3.5, 3.6, 3.7, 61, 62, 63)
    structure = Structure(lattice, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.52, 0.5]]) * (2, 2, 1)
    graph = model.graph_converter(structure)
    graph.lattice = graph.lattice.detach().double()
    graph.neighbor_image = graph.neighbor_image.double()

    def energy(positions: Tensor) -> Tensor:
        moved = copy.copy(graph)
        moved.atom_frac_coord = positions @ torch.linalg.inv(graph.lattice)
        return model([moved])["e"].sum()

    return energy, torch.tensor(structure.cart_coords)


def process() -> tuple[Callable[..., Tensor], Tensor]:
    """Return a Gaussian process's marginal likelihood by logarithms of scales, and a point."""
    import gpytorch

    inputs = _random(700, 4, seed=8)
    targets = inputs.sin().sum(1)

    def likelihood(scales: Tensor) -> Tensor:
        kernel = gpytorch.kernels.RBFKernel(ard_num_dims=4).double()
        kernel.raw_lengthscale_constraint = None
        scaled = inputs / scales[:4].exp()
        distances = kernel.covar_dist(scaled, scaled, square_dist=True)
        noise = scales[4].exp() * torch.eye(len(inputs), dtype=inputs.dtype)
        covariance = (-distances / 2).exp() + noise
        return gpytorch.distributions.MultivariateNormal(
            torch.zeros_like(targets), covariance
        ).log_prob(targets)

    return likelihood, torch.zeros(5, dtype=torch.float64)


def dispersion() -> tuple[Callable[..., Tensor], Tensor]:
    """Return the dispersion energy of water molecules by D4, and positions."""
    import tad_dftd4

    numbers, positions = _water(4)
    parameters = tad_dftd4.Param(s6=1.0, s8=0.95948085, s9=1.0, a1=0.38574991, a2=4.80688534)
    charge = torch.tensor(0.0, dtype=torch.float64)

    def energy(positions: Tensor) -> Tensor:
        return tad_dftd4.dftd4(numbers, positions, charge, parameters).sum()

    return energy, positions


def molecule() -> tuple[Callable[..., Tensor], Tensor]:
    """Return the energy of a water molecule by GFN1-xTB, and positions."""
    import dxtb

    numbers, positions = _water(1)
    options = {"verbosity": 0, "scf_mode": "full"}
    calculator = dxtb.Calculator(numbers, dxtb.GFN1_XTB, dtype=torch.float64, opts=options)

    def energy(positions: Tensor) -> Tensor:
        # Otherwise it keeps what it has computed at other positions.
        calculator.reset()
        return calculator.get_energy(positions)

    return energy, positions


def _water(molecules: int) -> tuple[Tensor, Tensor]:
    """Return the numbers of water molecules in a row, and their positions in bohr."""
    one = torch.tensor([[0.0, 0.0, 0.22], [0.0, 1.43, -0.89], [0.0, -1.43, -0.89]])
    places = torch.stack([one + torch.tensor([5.5 * n, 0.3 * n, 0.0]) for n in range(molecules)])
    return torch.tensor([8, 1, 1] * molecules), places.reshape(-1, 3).double()


def made(name: str) -> Callable[..., Tensor]:
    """Return the function of a case; a job calls this."""
    return globals()[name]()[0]


def by_hand(name: str, path: str) -> None:
    """Take a derivative by torch's own functions, and write it."""
    case = CASES[name]
    function, point = globals()[name]()
    points = point if case.is_at_many else [point]
    matrix = torch.cat([_matrix_by_hand(case, function, each) for each in points])
    with h5py.File(path, "w") as file:
        file["matrix"] = matrix
        file.flush()
        os.fsync(file.id.get_vfd_handle())


def _matrix_by_hand(case: Case, function: Callable[..., Tensor], point: Tensor) -> Tensor:
    derivative = function if case.operation == "jacobian" else torch.func.grad(function)
    if case.method == "rows":
        x = point.clone().requires_grad_()
        y = function(x)
        if case.operation == "hessian":
            (y,) = torch.autograd.grad(y, x, create_graph=True)
        rows = [torch.autograd.grad(each, x, retain_graph=True)[0] for each in y.reshape(-1)]
        matrix = torch.stack(rows).detach()
    else:
        matrix = torch.func.jacrev(derivative)(point)
    return matrix.reshape(-1, point.numel())


def command_of_job(name: str, place: Path) -> list[str]:
    """Return the command of a job, which reads the point from a file."""
    return [
        *("-m", "jobs.run", f"op={CASES[name].operation}", "function=python"),
        *(f"function.target={HERE}:made", "function.factory=true"),
        f"function.keywords.name={name}",
        *("inputs=numpy", f"inputs.path={place}/{name}.npy", f"runs={place}/runs"),
        *(["points=leading"] if CASES[name].is_at_many else []),
    ]


def compared(name: str, rounds: int, place: Path) -> dict[str, Any]:
    """Run both commands by turns, and compare what they wrote."""
    from commands import timed

    from outputs import open_result

    np.save(place / f"{name}.npy", globals()[name]()[1].numpy())
    hand = place / f"{name}.h5"
    commands = {
        "hand": [str(HERE), "--by-hand", name, str(hand)],
        "job": command_of_job(name, place),
    }
    python = [sys.executable, "-W", "ignore"]
    taken: dict[str, list[tuple[float, float]]] = {key: [] for key in commands}
    # The first round fills the cache of files.
    for number in range(rounds + 1):
        for key, options in commands.items():
            shutil.rmtree(place / "runs", ignore_errors=True)
            spent, seconds, output = timed([*python, *options], HERE.parent.parent)
            if number:
                taken[key].append((seconds, spent))
    with open_result(output.splitlines()[-1]) as result, h5py.File(hand) as file:
        # What an adaptive solver leaves to differences is chance.
        assert result.verdict.state in ("verified", "partly verified"), result.verdict
        expected = np.asarray(file["matrix"])
        error = np.abs(result[...].reshape(expected.shape) - expected).max()
        assert error <= 1e-8 * np.abs(expected).max(), error
    clock, processor = (
        {key: statistics.median(each[k] for each in times) for key, times in taken.items()}
        for k in (0, 1)
    )
    return {
        "by hand": clock["hand"],
        "job": clock["job"],
        "ratio": clock["job"] / clock["hand"],
        "ratio of processor time": processor["job"] / processor["hand"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="names of libraries or cases")
    given = parser.parse_args()
    print(f"{'library':14} {'operation':9} {'by hand':>8} {'job':>8} {'ratio':>6} {'processor':>9}")
    for name, case in CASES.items():
        if given.only and not {name, case.library} & set(given.only):
            continue
        if importlib.util.find_spec(case.library) is None:
            print(f"{case.library:14} is not installed")
            continue
        with tempfile.TemporaryDirectory() as place:
            found = compared(name, given.rounds, Path(place))
        print(
            f"{case.library:14} {case.operation:9} {found['by hand']:8.2f} {found['job']:8.2f} "
            f"{found['ratio']:6.2f} {found['ratio of processor time']:9.2f}",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--by-hand"]:
        by_hand(*sys.argv[2:])
    else:
        main()
