"""The types of all options: dataclasses under the YAML files of `conf/`.

Default values stand in the YAML files, where users look for them; here stands what they may be.
This module imports no torch, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Union

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

OPERATIONS = ("jacobian", "hessian", "vjp", "jvp", "vhp", "hvp")
STRATEGIES = ("auto", "reverse-loop", "vectorize", "forward-mode", "forward-loop")
DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
VERIFICATIONS = ("probe", "sample", "off")
NONFINITE_POLICIES = ("record", "fail")
STORED_DTYPES = ("auto", "float16", "float32", "float64", "complex64", "complex128")
FSYNCS = ("end", "block")
COMPRESSIONS = ("none", "gzip")


@dataclass
class FunctionConfig:
    """What is differentiated: a built-in problem or the user's own function."""

    name: str = MISSING


@dataclass
class Rosenbrock(FunctionConfig):
    """The chained Rosenbrock function."""

    n: int = MISSING


@dataclass
class Mlp(FunctionConfig):
    """A multilayer perceptron, differentiated by its input."""

    n: int = MISSING
    seed: int = MISSING


@dataclass
class MlpParameters(FunctionConfig):
    """A multilayer perceptron, differentiated by its parameters."""

    n: int = MISSING
    samples: int = MISSING
    seed: int = MISSING


@dataclass
class PairwiseEnergy(FunctionConfig):
    """The energy of points that interact in pairs."""

    n: int = MISSING
    seed: int = MISSING


@dataclass
class GpResidual(FunctionConfig):
    """The residuals of a sparse Gaussian process."""

    n: int = MISSING
    inducing: int = MISSING
    seed: int = MISSING


@dataclass
class Brusselator(FunctionConfig):
    """The right-hand side of a reaction-diffusion equation."""

    n: int = MISSING


@dataclass
class TransformerBlock(FunctionConfig):
    """A transformer encoder block, differentiated by its tokens."""

    n: int = MISSING
    width: int = MISSING
    heads: int = MISSING
    seed: int = MISSING


@dataclass
class RotationChain(FunctionConfig):
    """Points moved by a chain of hinge rotations."""

    n: int = MISSING


@dataclass
class PythonFunction(FunctionConfig):
    """A function of the user's, by import path."""

    target: str = MISSING
    point: str | None = None


@dataclass
class InputsConfig:
    """Where the point comes from."""

    source: str = MISSING


@dataclass
class RandomInputs(InputsConfig):
    """Seeded random numbers."""

    distribution: str = MISSING
    scale: float = MISSING
    seed: int = MISSING
    shapes: list[list[int]] | None = None


@dataclass
class NumpyInputs(InputsConfig):
    """A .npy file or an .npz archive."""

    path: str = MISSING


@dataclass
class Hdf5Inputs(InputsConfig):
    """Datasets of an HDF5 file."""

    path: str = MISSING
    datasets: list[str] = MISSING


@dataclass
class VectorsConfig:
    """Where the vectors of the products vjp, jvp, vhp and hvp come from."""

    source: str = MISSING


@dataclass
class RandomVectors(VectorsConfig):
    """Seeded random vectors."""

    count: int = MISSING
    distribution: str = MISSING
    scale: float = MISSING
    seed: int = MISSING


@dataclass
class NumpyVectors(VectorsConfig):
    """A .npy file or an .npz archive with a leading dimension over vectors."""

    path: str = MISSING


@dataclass
class Hdf5Vectors(VectorsConfig):
    """Datasets of an HDF5 file with a leading dimension over vectors."""

    path: str = MISSING
    datasets: list[str] = MISSING


@dataclass
class OutputConfig:
    """How the result is stored."""

    compression: str = MISSING
    dtype: str = MISSING
    tile: list[int] | None = None
    fsync: str = MISSING


@dataclass
class JobConfig:
    """All options of a job."""

    op: str = MISSING
    strategy: str = MISSING
    function: FunctionConfig = MISSING
    inputs: InputsConfig = MISSING
    vectors: VectorsConfig = MISSING
    device: str = MISSING
    dtype: str = MISSING
    # OmegaConf knows this form of a union alone.
    chunk_size: Union[int, str] = MISSING  # noqa: UP007
    memory: str = MISSING
    seed: int = MISSING
    verify: str = MISSING
    nonfinite: str = MISSING
    output: OutputConfig = field(default_factory=OutputConfig)
    shard: str | None = None
    shards: int | None = None
    runs: str = MISSING
    overwrite: bool = MISSING
    plan: bool = MISSING


GROUPS = {
    "function": {
        "rosenbrock": Rosenbrock,
        "mlp": Mlp,
        "mlp_parameters": MlpParameters,
        "pairwise_energy": PairwiseEnergy,
        "gp_residual": GpResidual,
        "brusselator": Brusselator,
        "transformer_block": TransformerBlock,
        "rotation_chain": RotationChain,
        "python": PythonFunction,
    },
    "inputs": {
        "default": InputsConfig,
        "random": RandomInputs,
        "numpy": NumpyInputs,
        "hdf5": Hdf5Inputs,
    },
    "vectors": {"random": RandomVectors, "numpy": NumpyVectors, "hdf5": Hdf5Vectors},
}


def register() -> None:
    """Make the schemas known to Hydra, under names that the YAML files refer to."""
    store = ConfigStore.instance()
    store.store(name="job_schema", node=JobConfig)
    for group, schemas in GROUPS.items():
        for name, schema in schemas.items():
            store.store(group=f"schema/{group}", name=name, node=schema)
