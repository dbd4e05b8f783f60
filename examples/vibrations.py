"""The vibrational frequencies of a cluster of 13 argon atoms, from the Hessian of its energy.

The frequencies are the square roots of the eigenvalues of the mass-weighted Hessian. The example
compares them with those of ASE, which has its own Lennard-Jones potential and uses finite
differences of its forces.

    python examples/vibrations.py

Needs ASE: ``pip install 'autodiff-jobs[examples]'``.
"""

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.lj import LennardJones
from ase.cluster import Icosahedron
from ase.optimize import BFGS
from ase.vibrations import Vibrations
from torch import Tensor

import jobs
from outputs import Result

# The parameters of argon: A. Rahman, Physical Review 136 (1964), A405.
EPSILON = 0.0103  # eV
SIGMA = 3.405  # Å
CUTOFF = 100.0  # Å: larger than the cluster, so that no pair is cut off


def energy(positions: Tensor) -> Tensor:
    """Return the Lennard-Jones energy in eV of atoms at positions of shape (n, 3), in Å."""
    first, second = torch.triu_indices(len(positions), len(positions), offset=1)
    squares = (positions[first] - positions[second]).square().sum(1)
    power = (SIGMA**2 / squares) ** 3
    return 4 * EPSILON * (power * (power - 1)).sum()


def relaxed_cluster() -> Atoms:
    """Return an icosahedron at the minimum of its energy."""
    atoms = Icosahedron("Ar", noshells=2, latticeconstant=5.26)
    atoms.calc = LennardJones(epsilon=EPSILON, sigma=SIGMA, rc=CUTOFF)
    BFGS(atoms, logfile=None).run(fmax=1e-8, steps=1000)
    return atoms


def frequencies(hessian: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Return the frequencies in 1/cm; those of unstable directions are negative.

    Args:
        hessian: Shape (3 n, 3 n), in eV/Å².
        masses: Shape (n,), in atomic mass units.
    """
    roots = np.repeat(masses, 3) ** -0.5
    eigenvalues = np.linalg.eigvalsh(roots[:, None] * hessian * roots)
    # The square root of eV/Å²/u, converted to an energy.
    factor = units._hbar * 1e10 / np.sqrt(units._e * units._amu) / units.invcm
    return np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues)) * factor


def main() -> None:
    """Run the job, and compare its frequencies with those of ASE."""
    atoms = relaxed_cluster()
    with jobs.compute(
        "hessian", energy, atoms.positions, strategy="vectorize", progress="quiet"
    ) as result:
        assert isinstance(result, Result)
        own = frequencies(result[...], atoms.get_masses())
    vibrations = Vibrations(atoms, name="vibrations", delta=1e-3, nfree=4)
    vibrations.run()
    reference = np.sort(np.real(vibrations.get_frequencies()))
    # Three translations and three rotations have frequency 0, up to the square root of rounding.
    print("  here       ASE      (1/cm)")
    for pair in zip(own[6:], reference[6:], strict=True):
        print("{:9.4f} {:9.4f}".format(*pair))
    print(f"largest frequency of a rigid motion: {np.abs(own[:6]).max():.1e}")
    print(f"largest difference: {np.abs(own[6:] - reference[6:]).max():.1e}")


if __name__ == "__main__":
    main()
