"""The check of a result while it is computed: blocks are held against what another route gives.

``verify=probe`` checks every entry. For random vectors u and v the products M v and uᵀ M are
computed by another route than the strategy that makes the blocks; a block of rows must reproduce
its slice of M v, a block of columns its slice of uᵀ M. This is the check of R. Freivalds,
"Probabilistic machines can use less running time" (IFIP 1977): a wrong line has an error of
exactly zero in it with probability zero.

The tolerance. The honest error of a line's product is that of a scalar product of n terms, within
λ √n ε |line| |v| in probability (N. J. Higham, T. Mary, "A new approach to probabilistic rounding
error analysis", SIAM J. Sci. Comput. 41, 2019), plus the rounding of the derivatives themselves,
which is ε times the condition of the function. Over the built-in problems and dtypes both together
were seen to stay below 16 ε relative to |line| |v|. Allowed is √ε, half of the digits, so that a
function may amplify rounding by 1/(16 √ε): 4 million times in float64, 180 times in float32. Lines
that cancel to almost nothing are measured against the typical product as well, and where all of
them do (a derivative that is zero only up to rounding), against what rounding of the value makes of
a derivative: ε |f| / |x|, of second order ε |f| / |x|².

What it finds. The components of u and v have magnitudes between 1/2 and 3/2 and random signs, so
that no entry hides behind a small one. A flipped sign in one entry of typical size among n shows as
an error of at least 2 · (1/2) / (√(13/12) n) relative to |line| |v|: in float64 above √ε up to
n = 6 · 10⁷, in float32 up to n = 2800.

``verify=sample`` recomputes a few random rows and columns by another strategy, and verifies only
those.
"""

from __future__ import annotations

import torch

from autodiff_core import Axis
from jobs.job import Job
from jobs.operations import OPERATIONS
from jobs.streams.stream import Stream
from jobs.verification.check import Check, NoCheck
from jobs.verification.numerics import rounding_floor
from jobs.verification.probe_check import ProbeCheck
from jobs.verification.probe_products import ProbeProducts
from jobs.verification.sample_check import SampleCheck


def prepare_check(job: Job, stream: Stream) -> Check:
    """Compute by other routes what the blocks of a job are held against.

    Args:
        job: The job; its option `verify` says how much is checked.
        stream: Its stream of blocks; gives shapes and axis.
    """
    if job.verify == "off":
        return NoCheck("verify=off")
    # A result stored in a shorter dtype is verified again from what is stored.
    widest = max(torch.finfo(dtype).eps for dtype in (job.dtype, job.storage or job.dtype))
    tolerance = widest**0.5
    if job.verify == "sample":
        return SampleCheck(job, stream, tolerance)
    probes = ProbeProducts(job, stream.value)
    is_product = OPERATIONS[job.operation].is_product
    right, reason = probes.of_product() if is_product else probes.right()
    # Of many points the sum of uᵀ M over them would be known, and no line of it.
    is_right_only = is_product or job.points is not None
    left, left_reason = (None, "") if is_right_only else probes.left()
    needed = left if stream.axis is Axis.COLUMNS else right
    if needed is None:
        return NoCheck(left_reason if stream.axis is Axis.COLUMNS else reason)
    floor = rounding_floor(job, stream.value, needed, tolerance)
    return ProbeCheck(needed, right, left, tolerance, floor, is_product=is_product)
