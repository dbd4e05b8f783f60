"""Measure what the comparison with differences costs a job, in evaluations and in CPU seconds.

Each job runs with `verify.differences=true` and with `false` by turns. The function counts its
calls by what the job does: planning (strategies are opened and measured), the differences, and the
products of the check. A call under `vmap` counts once, and so does one that a derivative follows.

    python benchmarks/verification_cost.py [--rounds 5] [--only mlp ...]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any
from unittest.mock import patch

import torch
from whole_jobs import job_of

from jobs.execution import preparation
from jobs.execution.execute import execute
from jobs.job import Job
from jobs.reporting.display import display_for
from outputs import open_result

# Columns of the weights are smaller and smaller, so that entries of the point have little effect.
GRADED = ["function=python", "function.point=verification_cost:graded_point"]
CASES = {
    "rosenbrock, tiny": ["op=hessian", "function=rosenbrock", "function.n=10"],
    "mlp, tiny": ["op=jacobian", "function=mlp", "function.n=8"],
    "gp_residual": ["op=hessian", "function=gp_residual"],
    "gp_residual, single": ["op=hessian", "function=gp_residual", "dtype=float32"],
    "small columns": ["op=jacobian", *GRADED, "function.target=verification_cost:graded"],
    "small columns, energy, single": [
        *("op=hessian", *GRADED, "function.target=verification_cost:graded_energy"),
        "dtype=float32",
    ],
    "transformer_block": ["op=jacobian", "function=transformer_block"],
    "pairwise_energy": ["op=hessian", "function=pairwise_energy", "function.n=200"],
    "mlp": ["op=jacobian", "function=mlp", "function.n=1024", "dtype=float32"],
    "mlp, long": ["op=jacobian", "function=mlp", "function.n=3000"],
    "pairwise_energy, long": ["op=hessian", "function=pairwise_energy", "function.n=600"],
}
PHASES = {
    "decide": "planning",
    "differences_of_job": "differences",
    "_check": "products",
}


def graded_point() -> torch.Tensor:
    """Return 40 numbers of about 1."""
    return torch.linspace(0.5, 1.5, 40, dtype=torch.float64)


def graded(x: torch.Tensor) -> torch.Tensor:
    """Return a layer whose columns are down to 1e-9 of the first."""
    weights = torch.randn(40, 40, generator=torch.Generator().manual_seed(0)).to(x)
    return ((weights * torch.logspace(0, -9, 40).to(x)) @ x).tanh()


def graded_energy(x: torch.Tensor) -> torch.Tensor:
    """Return its square."""
    return graded(x).square().sum()


@dataclass
class Costs:
    """Calls of the function and CPU seconds, by what the job does."""

    phase: str = "blocks"
    calls: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that counts its calls."""

        def call(*point: Any) -> Any:
            self.calls[self.phase] += 1
            return function(*point)

        return call

    def timed(self, action: Callable[..., Any], phase: str) -> Callable[..., Any]:
        """Return an action during which calls and seconds are those of a phase."""

        def act(*given: Any, **options: Any) -> Any:
            before, self.phase, started = self.phase, phase, time.process_time()
            try:
                return action(*given, **options)
            finally:
                spent = time.process_time() - started
                self.seconds[phase] = self.seconds.get(phase, 0.0) + spent
                self.phase = before

        return act


def main() -> None:
    """Run the cases and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[""], help="parts of the names of cases")
    options = parser.parse_args()
    names = [name for name in CASES if any(each in name for each in options.only)]
    print("| job | CPU s without | with | share | calls: planning | differences | products |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        # The first job warms torch up.
        run(CASES[name], differences=True)
        rounds = [
            [run(CASES[name], differences=differences) for differences in (False, True)]
            for _ in range(options.rounds)
        ]
        without, with_them = (
            statistics.median(seconds for seconds, _ in each) for each in zip(*rounds, strict=True)
        )
        costs = rounds[-1][1][1]
        spent = statistics.median(each[1][1].seconds["differences"] for each in rounds)
        calls = " | ".join(str(costs.calls[phase]) for phase in PHASES.values())
        print(
            f"| {name} | {without:.3f} | {with_them:.3f} | {spent:.4f} s, {spent / with_them:.1%} "
            f"| {calls} |",
            flush=True,
        )


def run(options: list[str], *, differences: bool) -> tuple[float, Costs]:
    """Run a job; return its CPU seconds and what it costs.

    Raises:
        SystemExit: Its result is not verified.
    """
    place = tempfile.mkdtemp(prefix="autodiff-jobs-cost-")
    costs = Costs()
    try:
        chosen = f"verify.differences={str(differences).lower()}"
        job = counting(job_of([*options, chosen, f"runs={place}"]), costs)
        started = time.process_time()
        with ExitStack() as stack:
            stack.enter_context(redirect_stdout(StringIO()))
            for name, phase in PHASES.items():
                timed = costs.timed(getattr(preparation, name), phase)
                stack.enter_context(patch.object(preparation, name, timed))
            path = execute(job, display_for("quiet"))
        seconds = time.process_time() - started
        with open_result(path) as result:
            if result.verdict.state != "verified":
                raise SystemExit(f"{options}: {result.verdict}")
    finally:
        shutil.rmtree(place)
    return seconds, costs


def counting(job: Job, costs: Costs) -> Job:
    """Return a job whose function counts its calls."""
    function = costs.counted(job.function.function)
    return replace(job, function=replace(job.function, function=function))


if __name__ == "__main__":
    main()
