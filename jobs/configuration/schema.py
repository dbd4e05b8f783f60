"""The types of all options: dataclasses under the YAML files of `conf/`.

Default values stand in the YAML files, where users look for them; here stands what they may be.
This module imports no torch, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Union

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

OPERATIONS = ("jacobian", "hessian", "vjp", "jvp", "vhp", "hvp")
STRATEGIES = ("auto", "reverse-loop", "vectorize", "forward-mode", "forward-loop")
DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
VERIFICATIONS = ("probe", "sample", "off")
COMPILATIONS = ("auto", "never", "always")
NONFINITE_POLICIES = ("record", "fail")
STORED_DTYPES = ("auto", "float16", "float32", "float64", "complex64", "complex128")
FSYNCS = ("end", "block")
COMPRESSIONS = ("none", "gzip")
PROGRESS = ("auto", "lines", "quiet", "json")
MODES = ("eval", "train")
REDUCTIONS = ("mean", "sum")
POINTS = ("leading", "files")


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
class NeighbourEnergy(FunctionConfig):
    """The energy of a crystal between nearest neighbours."""

    n: int = MISSING
    seed: int = MISSING


@dataclass
class ConvolutionStack(FunctionConfig):
    """Two convolutions over an image, differentiated by it."""

    n: int = MISSING
    channels: int = MISSING
    seed: int = MISSING


@dataclass
class Burgers(FunctionConfig):
    """The residual of an implicit step of Burgers' equation."""

    n: int = MISSING


@dataclass
class Arrow(FunctionConfig):
    """A function whose derivatives have the shape of an arrow."""

    n: int = MISSING


@dataclass
class FiniteElements(FunctionConfig):
    """The forces in a sheet of finite elements."""

    n: int = MISSING
    seed: int = MISSING


@dataclass
class PythonFunction(FunctionConfig):
    """A function or torch.nn.Module of the user's."""

    # An import path, or a mapping by Hydra's conventions: _target_, _partial_ and arguments.
    target: Any = MISSING
    keywords: dict[str, Any] = field(default_factory=dict)
    factory: bool = MISSING
    point: str | None = None
    weights: str | None = None
    weights_key: str | None = None
    mode: str = MISSING


@dataclass
class WrtConfig:
    """With respect to what is differentiated: inputs or parameters, chosen by their names."""

    of: str = MISSING
    pattern: Any = MISSING


@dataclass
class LossConfig:
    """What is made of a function's output, and over what batches it is summed."""

    kind: str = MISSING


@dataclass
class BatchedLoss(LossConfig):
    """A loss over samples, which follow one another along the leading dimension of the data."""

    reduction: str = MISSING
    batch_size: int | None = None


@dataclass
class TargetLoss(BatchedLoss):
    """A loss between the output and an input that is called `label`."""

    label: str = MISSING


@dataclass
class PythonLoss(TargetLoss):
    """A loss of the user's, by import path: of an output and a label."""

    target: str = MISSING


@dataclass
class SourceConfig:
    """Where tensors come from: those of the point, or the vectors of a product."""

    source: str = MISSING


@dataclass
class RandomInputs(SourceConfig):
    """Seeded random numbers."""

    distribution: str = MISSING
    scale: float = MISSING
    seed: int = MISSING
    shapes: list[list[int]] | None = None


@dataclass
class RandomVectors(SourceConfig):
    """Seeded random vectors."""

    count: int = MISSING
    distribution: str = MISSING
    scale: float = MISSING
    seed: int = MISSING


@dataclass
class FileSource(SourceConfig):
    """A file; `slice` takes a part of every tensor in it."""

    path: str = MISSING
    slice: str | None = None


@dataclass
class NumpySource(FileSource):
    """A .npy file or arrays of an .npz archive."""

    arrays: list[str] | None = None


@dataclass
class Hdf5Source(FileSource):
    """Datasets of an HDF5 file."""

    datasets: list[str] = MISSING


@dataclass
class SafetensorsSource(FileSource):
    """Tensors of a .safetensors file."""

    tensors: list[str] | None = None


@dataclass
class TorchSource(FileSource):
    """A tensor, or a dictionary of tensors, that torch.save wrote."""

    tensors: list[str] | None = None


@dataclass
class TableSource(FileSource):
    """Columns of a CSV or Parquet file."""

    # A list of columns, or a mapping from a tensor's name to a column or a list of columns.
    columns: Any = None


@dataclass
class ResultSource(FileSource):
    """The point of an earlier result."""

    tensors: list[str] | None = None


@dataclass
class ConstantSource(SourceConfig):
    """Numbers in the configuration itself."""

    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class NamedSource(SourceConfig):
    """Each tensor from a source of its own: a path, or a mapping with `source` and its options."""

    tensors: dict[str, Any] = field(default_factory=dict)


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
    wrt: WrtConfig = MISSING
    inputs: SourceConfig = MISSING
    points: str | None = None
    sparsity: str = MISSING
    loss: LossConfig = MISSING
    vectors: SourceConfig = MISSING
    # A name, or a list of names.
    devices: Any = MISSING
    dtype: str = MISSING
    # OmegaConf knows this form of a union alone.
    chunk_size: Union[int, str] = MISSING  # noqa: UP007
    compile: str = MISSING
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
    progress: str = MISSING


SOURCES = {
    "numpy": NumpySource,
    "hdf5": Hdf5Source,
    "safetensors": SafetensorsSource,
    "torch": TorchSource,
    "table": TableSource,
    "result": ResultSource,
    "constants": ConstantSource,
    "named": NamedSource,
}
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
        "neighbour_energy": NeighbourEnergy,
        "convolution_stack": ConvolutionStack,
        "burgers": Burgers,
        "arrow": Arrow,
        "finite_elements": FiniteElements,
        "python": PythonFunction,
    },
    "wrt": {"inputs": WrtConfig, "params": WrtConfig},
    "inputs": {
        "default": SourceConfig,
        "random": RandomInputs,
        **SOURCES,
    },
    "loss": {
        "none": LossConfig,
        "own": BatchedLoss,
        "mse": TargetLoss,
        "cross_entropy": TargetLoss,
        "python": PythonLoss,
    },
    "vectors": {"random": RandomVectors, **SOURCES},
}


def register() -> None:
    """Make the schemas known to Hydra, under names that the YAML files refer to.

    And ``${sweep_id:}``, which tells a sweep from others that start in the same second.
    """
    # Computed once for each configuration, which the launchers hand on to all jobs.
    OmegaConf.register_new_resolver(
        "sweep_id", lambda: uuid.uuid4().hex[:8], use_cache=True, replace=True
    )
    store = ConfigStore.instance()
    store.store(name="job_schema", node=JobConfig)
    for group, schemas in GROUPS.items():
        for name, schema in schemas.items():
            store.store(group=f"schema/{group}", name=name, node=_open_mappings(schema))


def _open_mappings(schema: type) -> DictConfig:
    """A schema whose mappings take any key, so that none has to be added with a plus sign."""
    node = OmegaConf.structured(schema)
    for key in node:
        # A missing value is no node of its own; asking for it would raise.
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):
            OmegaConf.set_struct(node[key], False)
    return node
