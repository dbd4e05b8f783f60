"""The structural patterns of sparse Jacobians and Hessians, detected from a traced graph.

Needs numba and scipy, the extra ``sparse``.
"""

from autodiff_core.sparse._extras import require_extras

require_extras()

from autodiff_core.sparse._detect import detect_sparsity  # noqa: E402 - after the clear message
from autodiff_core.sparse._errors import DetectionError, PatternError  # noqa: E402
from autodiff_core.sparse._pattern import SparsityPattern  # noqa: E402

__all__ = ["DetectionError", "PatternError", "SparsityPattern", "detect_sparsity"]
