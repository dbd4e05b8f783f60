"""Analyse a symmetric matrix of 3.2 GB within a GiB of memory, against its known spectrum.

    python benchmarks/analysis.py [--size 20000] [--memory 1GiB] [--only trace ...]

The matrix is C diag(λ) Cᵀ with the orthonormal cosine transform C, whose entries are sums of two
numbers (a Toeplitz and a Hankel matrix), so that it is written in bands. The command is the real
one, in its own process, whose resident memory is sampled from outside every 20 milliseconds. The
script prints time, peak memory and the deviation of each answer from the truth.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import scipy.fft

from outputs import Axis, ResultDescription, ResultWriter, TensorSpec

_SECONDS_BETWEEN_LOOKS = 0.02
_BAND = 200
QUESTIONS = {
    "eigenvalues": ("--eigenvalues", "20"),
    "trace": ("--trace",),
    "log_determinant": ("--log-determinant",),
    "solution": ("--solve", "b.npy"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=20000)
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("--directory", help="where the matrix is written, and removed again")
    parser.add_argument("--only", nargs="*", choices=QUESTIONS, default=list(QUESTIONS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as place:
        path = Path(place) / "result.h5"
        spectrum = write(path, given.size)
        b = np.random.default_rng(0).standard_normal(given.size)
        np.save(Path(place) / "b.npy", b)
        for name in given.only:
            options = [*QUESTIONS[name], "--memory", given.memory]
            run(path, name, options, spectrum, b)


def write(path: Path, size: int) -> np.ndarray:
    """Write the matrix and return its eigenvalues: most of them close, those at both ends apart."""
    spectrum = 1 + 9 * np.linspace(0, 1, size) ** 2
    spectrum[:30] = np.linspace(0.05, 0.9, 30)
    spectrum[-30:] = np.linspace(11, 100, 30)
    # A[i, j] = (c[|i - j|] + c[i + j + 1]) / 2 with the cosine series c of the spectrum.
    series = np.asarray(scipy.fft.dct(np.append(spectrum, 0.0), type=1))
    series = np.concatenate([series, series[-2::-1]])[: 2 * size] / size / 2
    index = np.arange(size)
    tensor = (TensorSpec("x", (size,), "float64"),)
    description = ResultDescription(
        operation="hessian",
        strategy="known",
        function="benchmarks:cosine_transform",
        fingerprint="0" * 16,
        axis=Axis.ROWS,
        rows=tensor,
        columns=tensor,
        dtype="float64",
        rows_are_tuple=False,
        columns_are_tuple=False,
        point={},
        value={},
        vectors={},
        configuration="",
        provenance={},
    )
    with ResultWriter.create(path, description) as writer:
        for start in range(0, size, _BAND):
            rows = index[start : start + _BAND, None]
            band = series[np.abs(rows - index)] + series[rows + index + 1]
            writer.write(start, start + len(band), band)
        writer.finish({"seconds": 0.0})
    return spectrum


def run(path: Path, name: str, options: list[str], spectrum: np.ndarray, b: np.ndarray) -> None:
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "outputs.analyse", path.name, *options],
        stdout=subprocess.PIPE,
        cwd=path.parent,
    )
    most = 0
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            most = max(most, watched.memory_info().rss)
        except psutil.Error:
            break
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    seconds = time.monotonic() - started
    if process.wait():
        raise SystemExit(f"{name} ended with {process.returncode}")
    with h5py.File(path.with_suffix(".analysis.h5")) as file:
        group: Any = file[name]
        values, error = group["values"][()], group["error"][()]
        method = group.attrs["method"].decode()
    deviation = np.abs(values - truth(name, spectrum, b)).max()
    print(
        f"{name}: {seconds:.0f} s, peak memory {most / 2**20:.0f} MiB, {method}, "
        f"largest deviation {deviation:.2g}, stated error {np.max(error):.2g}",
        flush=True,
    )


def truth(name: str, spectrum: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the exact answer."""
    if name == "eigenvalues":
        return np.concatenate([np.sort(spectrum)[:20], np.sort(spectrum)[-20:]])
    if name == "solution":
        coefficients = np.asarray(scipy.fft.dct(b, norm="ortho")) / spectrum
        return np.asarray(scipy.fft.idct(coefficients, norm="ortho"))
    return np.sum(spectrum if name == "trace" else np.log(spectrum))


if __name__ == "__main__":
    main()
