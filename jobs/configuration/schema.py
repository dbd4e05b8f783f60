"""The types of all options: dataclasses that the YAML files of `conf/` are checked against.

Default values are in the YAML files, where users look for them; this module defines what is valid.
It does not import torch, so that ``--help`` and invalid options are answered at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Union

from omegaconf import MISSING

STRATEGIES = ("auto", "reverse-loop", "vectorize", "forward-mode", "forward-loop")
DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
COMPILATIONS = ("auto", "never", "always")
NONFINITE_POLICIES = ("record", "fail")
STORED_DTYPES = ("auto", "float16", "float32", "float64", "complex64", "complex128")
FSYNCS = ("end", "block")
COMPRESSIONS = ("none", "gzip")
VERIFY_MODES = ("probe", "sample", "off")
PROGRESS = ("auto", "lines", "quiet", "json")
MODES = ("eval", "train")
# Of a module that a program passes: its own.
OWN_MODE = "own"
REDUCTIONS = ("mean", "sum")
FISHER_KINDS = ("empirical", "true")


# A field that holds an object of the caller's, which no YAML could.
_NO_OPTION = {"omegaconf_ignore": True}


@dataclass
class FunctionConfig:
    """The function to differentiate: a built-in problem or the user's own function."""

    name: str = MISSING


@dataclass
class PythonFunction(FunctionConfig):
    """The user's own function or torch.nn.Module."""

    # An import path, or a mapping by Hydra's conventions: _target_, _partial_ and arguments.
    target: Any = MISSING
    keywords: dict[str, Any] = field(default_factory=dict)
    factory: bool = MISSING
    point: str | None = None
    output: str | None = None
    weights: str | None = None
    weights_key: str | None = None
    mode: str = MISSING
    # The batches of a loss; `held_data` holds them where a program passes them.
    data: str | None = None
    held_data: Any = field(default=None, metadata=_NO_OPTION)


@dataclass
class LiveFunction(PythonFunction):
    """A function that a program passes to `jobs.compute`; `target` is its name.

    Attributes:
        identity: The SHA-256 of what determines its values.
        named: Whether the name stands for what the identity cannot cover.
        covers: What the identity covers and, at the end, what it does not.
        modules: The names of the modules that the identity met.
        held: The function.
        is_own: Whether no one else holds it, so that it need not be copied.
    """

    identity: str = ""
    named: bool = False
    covers: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    held: Any = field(default=None, metadata=_NO_OPTION)
    is_own: bool = field(default=False, metadata=_NO_OPTION)


@dataclass
class VerifyConfig:
    """How a result is checked while it is computed.

    Attributes:
        mode: ``probe``, ``sample`` or ``off``.
        differences: Whether the derivative is compared with finite differences of the function.
        tolerance: The largest relative error that passes; None for the square root of the
            precision.
        required: Whether a job with a result that is not verified ends with an error.
    """

    mode: str = MISSING
    differences: bool = MISSING
    tolerance: float | None = None
    required: bool = MISSING


@dataclass
class WrtConfig:
    """The variables of differentiation: inputs or parameters, selected by name."""

    of: str = MISSING
    pattern: Any = MISSING


@dataclass
class LossConfig:
    """The loss that is computed from the function's output, if any."""

    kind: str = MISSING


@dataclass
class BatchedLoss(LossConfig):
    """A loss over samples, which are stacked along the leading dimension of the data."""

    reduction: str = MISSING
    batch_size: int | None = None


@dataclass
class TargetLoss(BatchedLoss):
    """A loss that compares the output with the input named `label`."""

    label: str = MISSING


@dataclass
class PythonLoss(TargetLoss):
    """The user's own loss of an output and labels, by import path."""

    target: str = MISSING


@dataclass
class LiveLoss(PythonLoss):
    """A loss that a program passes; the attributes are those of `LiveFunction`."""

    identity: str = ""
    covers: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    held: Any = field(default=None, metadata=_NO_OPTION)


@dataclass
class SourceConfig:
    """The source of tensors: of the point, or of the vectors of a product."""

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
    """Seeded random vectors; `stored` says whether the file keeps them, or their seed."""

    count: int = MISSING
    distribution: str = MISSING
    scale: float = MISSING
    seed: int = MISSING
    stored: bool | None = None


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
    links: bool = False


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
class AtomsSource(FileSource):
    """Atoms of a file that ASE reads."""

    # A frame or a range of frames.
    index: str | None = None
    # What each argument of another name gets.
    names: dict[str, str] = field(default_factory=dict)


@dataclass
class ConstantSource(SourceConfig):
    """Numbers in the configuration itself."""

    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class NamedSource(SourceConfig):
    """A separate source per tensor: a path, or a mapping with `source` and its options."""

    tensors: dict[str, Any] = field(default_factory=dict)


@dataclass
class LiveSource(SourceConfig):
    """Arrays that a program passes.

    Attributes:
        arrays: Their dtypes and shapes as text, by name; by position where they have no names.
        held: Name to array; without names a tuple of arrays, or a single one.
    """

    arrays: dict[str, str] = field(default_factory=dict)
    held: Any = field(default=None, metadata=_NO_OPTION)


@dataclass
class PointsConfig:
    """At which points the derivative is taken.

    Attributes:
        by: ``single``, ``leading``, ``files`` or ``offsets``.
        batched: Whether the function takes a batch, so that a point goes in as a batch of one.
    """

    by: str = "single"
    batched: bool = False
    # Where each point begins, and where the last one ends: a list, or a .npy file.
    offsets: Any = None

    @property
    def are_many(self) -> bool:
        """Whether there is a matrix for each of many points."""
        return self.by != "single"


@dataclass
class StructureConfig:
    """Which entries of the matrix are computed and kept.

    Attributes:
        kind: ``full``, ``diagonal`` or ``blocks``.
        groups: The tensors of each diagonal block, as patterns: a list whose items are a pattern
            or a list of them, in the typed options lists; None for a block for each tensor.
    """

    kind: str = "full"
    groups: Any = None


@dataclass
class OutputConfig:
    """How the result is stored."""

    compression: str = MISSING
    dtype: str = MISSING
    tile: list[int] | None = None
    fsync: str = MISSING


@dataclass
class FisherConfig:
    """Which Fisher matrix op=fisher computes."""

    kind: str = MISSING


@dataclass
class JobConfig:
    """All options of a job."""

    op: str = MISSING
    strategy: str = MISSING
    function: FunctionConfig = MISSING
    wrt: WrtConfig = MISSING
    inputs: SourceConfig = MISSING
    points: PointsConfig = field(default_factory=PointsConfig)
    # A number or range, a file, or a mapping; in the typed options as `checked_selection` has it.
    rows: Any = None
    columns: Any = None
    structure: StructureConfig = field(default_factory=StructureConfig)
    sparsity: str = MISSING
    loss: LossConfig = MISSING
    fisher: FisherConfig = field(default_factory=FisherConfig)
    vectors: SourceConfig = MISSING
    # A name, or a list of names.
    devices: Any = MISSING
    dtype: str = MISSING
    # OmegaConf supports no other form of a union.
    chunk_size: Union[int, str] = MISSING  # noqa: UP007
    compile: str = MISSING
    memory: str = MISSING
    seed: int = MISSING
    verify: VerifyConfig = MISSING
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
