"""Choose the check of a result: its blocks are compared with what another route gives.

``verify=probe`` checks every entry. For random vectors u and v the products M v and uᵀ M are
computed by another route than the strategy that makes the blocks; a block of rows must reproduce
its slice of M v, a block of columns its slice of uᵀ M. This is the check of R. Freivalds,
"Probabilistic machines can use less running time" (IFIP 1977): the product of a wrong line has an
error of exactly zero with probability zero.

The tolerance. A correct line's product has the error of a scalar product of n terms, within
λ √n ε |line| |v| in probability (N. J. Higham, T. Mary, "A new approach to probabilistic rounding
error analysis", SIAM J. Sci. Comput. 41, 2019), plus the rounding of the derivatives themselves,
which is ε times the condition of the function. Over the built-in problems and dtypes both together
were observed to stay below 16 ε relative to |line| |v|. The tolerance is √ε, half of the digits, so
that a function may amplify rounding by 1/(16 √ε): 4 million times in float64, 180 times in float32;
ε is that of the least precise stage that the derivative runs through. The error of lines that
cancel to almost nothing is relative to the typical product as well, and where all of them cancel (a
derivative that is zero only up to rounding), to the error that rounding of the value makes in a
derivative: ε |f| / |x|, of second order ε |f| / |x|².

What the check finds. The components of u and v have magnitudes between 1/2 and 3/2 and random
signs, so that no entry is hidden by a small component. A flipped sign in one entry of typical size
among n causes an error of at least 2 · (1/2) / (√(13/12) n) relative to |line| |v|: in float64
above √ε up to n = 6 · 10⁷, in float32 up to n = 2800.

``verify=sample`` recomputes a few random rows and columns by another strategy, and verifies only
those.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch

from autodiff_core import Axis
from jobs.job import Job
from jobs.operations import OPERATIONS
from jobs.streams.stream import Stream, bounds_of
from jobs.verification.check import Check, NoCheck
from jobs.verification.numerics import Probe, rounding_floor
from jobs.verification.precision import allowed_error
from jobs.verification.probe_check import ProbeCheck
from jobs.verification.probe_products import ProbeProducts
from jobs.verification.routes import Routes
from jobs.verification.sample_check import SampleCheck


def prepare_check(job: Job, stream: Stream, routes: Routes | None = None) -> Check:
    """Compute by other routes what the blocks of a job are compared with.

    Args:
        job: The job; its option `verify` says how much is checked.
        stream: Its stream of blocks, with shapes and axis.
        routes: The routes to its derivative, compared with differences before.
    """
    if job.verify == "off":
        return NoCheck("verify=off")
    tolerance = allowed_error(job)
    if job.verify == "sample":
        return SampleCheck(job, stream, tolerance)
    routes = routes or Routes(job, stream.value)
    probes = ProbeProducts(routes, tolerance)
    is_product = OPERATIONS[job.operation].is_product
    right, reason = probes.of_product() if is_product else probes.right()
    right = right and _known_whole(right, stream)
    # Of many points only the sum of uᵀ M over them would be known, which checks no single line.
    is_right_only = is_product or job.points is not None or job.is_ragged
    left, left_reason = (None, "") if is_right_only else probes.left()
    if is_product and right is None:
        left, reason = probes.of_combination()
    is_by_columns = stream.axis is Axis.COLUMNS
    needed, other = (left, right) if is_by_columns else (right, left)
    # What differences gave is known to their error only.
    tolerance = max(tolerance, routes.uncertainty)
    if needed is None and other is None:
        return NoCheck(left_reason if is_by_columns else reason)
    needed = needed or _without_product(stream, job.device)
    floor = rounding_floor(job, stream.value, needed, tolerance)
    return ProbeCheck(
        needed,
        right,
        left,
        tolerance,
        floor,
        is_product=is_product,
        notes=routes.notes,
        by_differences=routes.has_pushed_differences,
        is_curvature=OPERATIONS[job.operation].is_curvature and not _is_of_lines(job),
        bounds=bounds_of(stream),
    )


def _known_whole(probe: Probe, stream: Stream) -> Probe:
    """Return a probe whose products are known of all rows of one of many matrices, or of none.

    Where one is not finite, routes differ in the other rows of the matrix: 0 times infinity is NaN.
    """
    is_finite = probe.product.isfinite()
    if bool(is_finite.all()):
        return probe
    bounds = bounds_of(stream) or range(0, len(probe.product) + 1, stream.unit)
    heights = torch.tensor([stop - start for start, stop in pairwise(bounds)])
    numbers = torch.arange(len(heights)).repeat_interleave(heights).to(probe.product.device)
    unknown = torch.zeros(len(heights), dtype=torch.bool, device=numbers.device)
    unknown[numbers[~is_finite]] = True
    return replace(probe, product=probe.product.masked_fill(unknown[numbers], torch.nan))


def _is_of_lines(job: Job) -> bool:
    return job.part is not None and job.part.lines is not None


def _without_product(stream: Stream, device: torch.device) -> Probe:
    """Return a probe whose products are not known: the complete matrix is checked at the end."""
    lines, across = stream.axis.lines(stream.shape), stream.axis.across(stream.shape)
    unknown = torch.full((lines,), torch.nan, device=device)
    return Probe(torch.ones(across, device=device), unknown)
