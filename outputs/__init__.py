"""Results on disk: write a stream of blocks to an HDF5 file, and read the file back as arrays.

This package knows neither the computation nor its configuration; it imports only numpy and h5py.
"""

import outputs._hidden_packages  # noqa: F401
from outputs._errors import (
    BeingWrittenError,
    ChangedFunctionError,
    FingerprintMismatchError,
    MissingDependencyError,
    ResultError,
    ResultExistsError,
    ResultNotFoundError,
    TruncatedResultError,
    UnfinishedResultError,
)
from outputs._format.axes import Axis, Shard, TensorSpec
from outputs._format.description import ResultDescription
from outputs._format.drawn_vectors import DrawnVectors
from outputs._format.probes import Probes
from outputs._format.selection import Selection
from outputs._format.tiling import planned_tile
from outputs._format.verification_state import Verdict, VerificationState, figures_verdict, weakest
from outputs._reading.foreign_datasets import find_dataset
from outputs._reading.result import Result, open_result
from outputs._reading.sparse_result import SparseResult, is_sparse_result, open_sparse_result
from outputs._scanning.reference import Reference
from outputs._sharding.merging import merge_shards
from outputs._storage.files import part_path, scratch_file
from outputs._text import printable
from outputs._verification.comparison import Difference, compare_results, compare_sparse_results
from outputs._verification.report import Verification
from outputs._verification.verify import verify_result
from outputs._writing.background import BackgroundWriter
from outputs._writing.directories import claimed_directory, remove_orphans, scratch_for
from outputs._writing.sparse_writer import write_sparse
from outputs._writing.writer import ResultWriter

__all__ = [
    "Axis",
    "BackgroundWriter",
    "BeingWrittenError",
    "ChangedFunctionError",
    "Difference",
    "DrawnVectors",
    "FingerprintMismatchError",
    "MissingDependencyError",
    "Probes",
    "Reference",
    "Result",
    "ResultDescription",
    "ResultError",
    "ResultExistsError",
    "ResultNotFoundError",
    "ResultWriter",
    "Selection",
    "Shard",
    "SparseResult",
    "TensorSpec",
    "TruncatedResultError",
    "UnfinishedResultError",
    "Verdict",
    "Verification",
    "VerificationState",
    "claimed_directory",
    "compare_results",
    "compare_sparse_results",
    "figures_verdict",
    "find_dataset",
    "is_sparse_result",
    "merge_shards",
    "open_result",
    "open_sparse_result",
    "part_path",
    "planned_tile",
    "printable",
    "remove_orphans",
    "scratch_file",
    "scratch_for",
    "verify_result",
    "weakest",
    "write_sparse",
]
