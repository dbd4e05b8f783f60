"""Names, versions and limits of the file format."""

from __future__ import annotations

from urllib.parse import unquote

import numpy as np

FORMAT = "autodiff-jobs"
FORMAT_VERSION = 11
# The attribute that counts additions, which earlier readers of the same version may ignore.
MINOR_VERSION = "format_minor_version"
CURRENT_MINOR_VERSION = 1

# A file has the lowest version whose readers can read it.
VERSION_OF_WHOLE_FILES = 1
VERSION_OF_PARTS = 2
VERSION_OF_POINTS = 3
VERSION_OF_SPARSE_FILES = 4
VERSION_OF_SELECTIONS = 5
VERSION_OF_CURVATURES = 6
VERSION_OF_RAGGED_FILES = 7
VERSION_OF_DRAWN_VECTORS = 8
VERSION_OF_DIAGONALS = 9
VERSION_OF_BLOCKS = 10
VERSION_OF_RAGGED_SELECTIONS = 11

LEDGER_DTYPE = np.dtype(
    [
        ("start", "<i8"),
        ("stop", "<i8"),
        ("seconds", "<f8"),
        ("checksum", "<u4"),
        ("state", "<u4"),
    ]
)

TABLE_FIELDS = ("name", "shape", "start", "stop", "dtype")
PROBES = ("right", "right_product", "left", "left_product")
EXECUTION_BYTES = 256 * 1024

# The tile that the configuration sets; a small shard may have smaller tiles.
WHOLE_TILE = ("tile_rows", "tile_columns")
VIRTUAL = "virtual"
POINTS = "points"
# Which entries of the matrix there are, where these are not all.
STRUCTURE = "structure"
# Where the entries of each of many points of different sizes, or of each diagonal block, begin.
OFFSETS = "offsets"
# How many tensors each diagonal block has.
GROUPS = "groups"
# The attributes of the group of the vectors that are drawn.
DRAWN = ("distribution", "seed", "count", "scale")


class Names:
    """The names of groups and datasets; the matrix is named by its operation."""

    ROWS = "rows"
    COLUMNS = "columns"
    POINT = "point"
    VALUE = "value"
    VECTORS = "vectors"
    CONFIGURATION = "configuration"
    PROVENANCE = "provenance"
    EXECUTION = "execution"
    LEDGER = "ledger"
    PROBES = "probes"
    ROW = "row"
    COLUMN = "column"
    POINT_NUMBER = "point_number"
    ROW_NUMBERS = "row_numbers"
    COLUMN_NUMBERS = "column_numbers"
    WHOLE_ROWS = "whole_rows"
    WHOLE_COLUMNS = "whole_columns"
    VECTOR_TENSORS = "vector_tensors"
    TABLE_SCALES = (
        "row_tensor",
        "column_tensor",
        "ledger_entry",
        "whole_row_tensor",
        "whole_column_tensor",
        "vector_tensor",
    )

    @staticmethod
    def escape(name: str) -> str:
        """Return an HDF5 path component for any tensor name."""
        if name in ("", "."):
            return {"": "%", ".": "%2E"}[name]
        return name.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")

    @staticmethod
    def unescape(component: str) -> str:
        """Return the tensor name of an HDF5 path component."""
        return "" if component == "%" else unquote(component)


# The attributes by which AnnData's readers recognize a sparse matrix.
ENCODING = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}
COLOURING = "colouring"
CHECKSUMS = "checksums"
DIGESTS = "digests"

# Number of entries of a sparse matrix that one checksum covers, and that one access transfers.
PIECE = 2**20

ARRAYS = ("data", "indices", "indptr")
CHECKSUM = np.dtype([("array", "<u4"), ("start", "<u8"), ("stop", "<u8"), ("crc32", "<u4")])
