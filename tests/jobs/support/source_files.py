"""Files that a job reads arrays from, and those that it cannot read."""

from pathlib import Path

import h5py
import numpy as np


def save_npy(path: Path, arrays: dict[str, np.ndarray]) -> list[str]:
    np.save(path / "a b.npy", next(iter(arrays.values())))
    return ["numpy", "path='a b.npy'"]


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> list[str]:
    np.savez(path / "it's.npz", **arrays)  # pyright: ignore[reportArgumentType]
    return ["numpy", 'path="it\'s.npz"']


def save_hdf5(path: Path, arrays: dict[str, np.ndarray]) -> list[str]:
    with h5py.File(path / "a=b.h5", "w") as file:
        for name, array in arrays.items():
            file[f"group/{name}"] = array
    names = ",".join(f"/group/{name}" for name in arrays)
    return ["hdf5", "path='a=b.h5'", f"datasets=[{names}]"]


SAVERS = [save_npy, save_npz, save_hdf5]


def options(group: str, saved: list[str]) -> list[str]:
    return [f"{group}={saved[0]}", *(f"{group}.{option}" for option in saved[1:])]


def write_bad_files(directory: Path) -> None:
    np.save(directory / "five.npy", np.ones(5))
    np.save(directory / "nan.npy", np.array([1, np.nan, np.inf, 4]))
    np.save(directory / "complex.npy", np.ones(4, complex))
    np.save(directory / "text.npy", np.array(["a", "b", "c", "d"]))
    np.save(directory / "objects.npy", np.array([{}, 1, 2, 3]), allow_pickle=True)
    np.savez(directory / "named.npz", a=np.ones(4), b=np.ones(4))
    np.savez(directory / "counts.npz", inducing_points=np.ones((2, 3)), log_lengthscale=np.ones(1))
    (directory / "damaged.npy").write_bytes((directory / "five.npy").read_bytes()[:-8])
    (directory / "damaged.npz").write_bytes((directory / "named.npz").read_bytes()[:-40])
    (directory / "text.txt").write_text("1 2 3 4")
    with h5py.File(directory / "a.h5", "w") as file:
        file["group/x"] = np.ones(4)
        file["other/x"] = np.ones(4)
    (directory / "damaged.h5").write_bytes((directory / "a.h5").read_bytes()[:600])
