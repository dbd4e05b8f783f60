"""The types of all options: dataclasses under the YAML files of `conf/`.

Default values stand in the YAML files, where users look for them; here stands what they may be.
This module imports no torch, so that ``--help`` and mistakes answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Union

from omegaconf import MISSING

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
