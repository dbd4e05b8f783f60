"""Files and constants as named arrays, read no sooner and no further than needed."""

from jobs.sources._array import SourceArray, source_of_tensor
from jobs.sources._read import read_source

__all__ = ["SourceArray", "read_source", "source_of_tensor"]
