"""Curvature matrices of a loss over data, Gauss-Newton and Fisher, as blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from autodiff_core import Axis, AxisLayout, Block, Fallback, GaussNewton
from jobs.errors import JobError
from jobs.functions.curvature import Curvature, CurvatureTerm
from jobs.functions.elements import elements_of
from jobs.functions.evaluation import evaluated
from jobs.functions.part import Lines
from jobs.machine.accelerator import seed_generators
from jobs.strategies import FORWARD
from jobs.streams.stream import PlainStream

_HALF = (torch.float16, torch.bfloat16)
# The Jacobian of the outputs that reverse mode holds at once has about so many entries, and so many
# rows at least: of fewer, a matrix product would spend its time on the sum that it adds to.
_ENTRIES_AT_ONCE = 2**24
_ROWS_AT_ONCE = 64
# Of so many terms one is computed to predict the time of all.
_TERMS_FOR_ONE_MEASURED = 32
_NO_CURVATURE = (
    "op={kind}: the loss has no curvature at these outputs: its second derivative with respect to "
    "them is zero, as that of an absolute or a linear loss is, and so is the matrix. Valid are "
    "losses such as mse and cross_entropy; op=fisher needs first derivatives only"
)
_NOT_APART = (
    "the outputs or the loss of samples by themselves are not those of the batch, as with batch "
    "normalization in training mode"
)


class CurvatureStream(PlainStream):
    """JᵀHJ, the sum over the data, as blocks of rows; the matrix is symmetric.

    Reverse strategies form the Jacobian J of the outputs, a few samples at a time, and multiply
    matrices; forward strategies push unit vectors through the batches of the loss, and back. Of
    selected rows and columns the fewer are computed as rows. The attributes are those of a
    `Stream`.
    """

    unit = 1
    is_divisible = True

    def __init__(
        self,
        function: Curvature,
        inputs: Sequence[Tensor],
        seed: int,
        strategy: str,
        lines: Lines | None = None,
        *,
        may_be_zero: bool = False,
    ) -> None:
        """Evaluate the loss, and look at its first batch.

        Args:
            function: The loss.
            inputs: The tensors of the point.
            seed: The seed of torch's generators; each batch uses it plus its number.
            strategy: The strategy.
            lines: Which rows and columns are computed; None for all.
            may_be_zero: Whether a loss without curvature in the outputs is one of several.

        Raises:
            JobError: The loss has no curvature in the outputs, and is the only one.
        """
        self._function, self._may_be_zero = function, may_be_zero
        self._inputs = tuple(inputs)
        self._seed = seed
        self._strategy = strategy
        self._pending: list[Fallback] = []
        layout = AxisLayout.of(self._inputs)
        self.rows, self.columns = layout, layout
        rows, columns = torch.arange(layout.size), None
        if lines is not None:
            self.rows, self.columns = (
                AxisLayout.of(elements_of(self._inputs, each))
                for each in (lines.rows, lines.columns)
            )
            rows, columns = (torch.from_numpy(s.numbers) for s in (lines.rows, lines.columns))
        self.shape = (self.rows.size, self.columns.size)
        self.axis = Axis.ROWS
        if columns is not None and len(columns) < len(rows):
            self.axis, rows, columns = Axis.COLUMNS, columns, rows
        device = self._inputs[0].device
        self._lines = rows.to(device)
        self._across = None if columns is None else columns.to(device)
        self.passes = len(rows)
        first = self._first()
        self.dtype = first.dtype
        # Two parts of a batch show whether its samples are independent of one another.
        self._samples_of_a_part: int | None = None
        self._samples_at_once = self._split(first)
        self.value: Any
        self.value, self._lengths = self._evaluated()
        # Fewer rows take as long, because each block forms the Jacobian of the outputs.
        self.fewest_worth_measuring = 1 if strategy in FORWARD else _ROWS_AT_ONCE

    def block(self, start: int, stop: int) -> Block:
        """Compute the lines start, ..., stop - 1 as the sum over all terms."""
        return self._block(start, stop, is_share=False)[0]

    def block_of_a_share(self, start: int, stop: int) -> tuple[Block, float]:
        """Compute a block of a share of the data, which takes that share of the time."""
        return self._block(start, stop, is_share=True)

    def _block(self, start: int, stop: int, *, is_share: bool) -> tuple[Block, float]:
        total = self.zeros(stop - start, self.axis.across(self.shape))
        parts = [(self._lines[start:stop], total, self._across)]
        fallbacks, share = self.add_parts(self._function, self._inputs, parts, is_share=is_share)
        values = (total.to(self.dtype),)
        return Block(self.axis, start, stop, values, self.dtype, fallbacks), share

    def zeros(self, lines: int, across: int) -> Tensor:
        """Return what terms are added to; half precision would round small ones away."""
        dtype = torch.float32 if self.dtype in _HALF else self.dtype
        return self._inputs[0].new_zeros((lines, across), dtype=dtype)

    def add_parts(
        self,
        function: Curvature,
        inputs: Sequence[Tensor],
        parts: Sequence[tuple[Tensor, Tensor, Tensor | None]],
        *,
        is_share: bool,
    ) -> tuple[tuple[Fallback, ...], float]:
        """Add parts of the matrix by some of the tensors in one pass over the data.

        Args:
            function: The loss as a function of these tensors.
            inputs: The tensors.
            parts: As for `GaussNewton.add_parts`.
            is_share: Whether some of the data are enough, to tell the time. Terms take about
                equally long; so many are computed that differences even out.

        Returns:
            The fallbacks that were taken, and the share of the data.
        """
        size = None if self._samples_at_once is None else self._most_samples(function.width)
        count = sum(-(-each // size) if size and each else 1 for each in self._lengths)
        terms = -(-count // _TERMS_FOR_ONE_MEASURED) if is_share else count
        fallbacks = {str(each): each for each in self._pending}
        self._pending.clear()
        for number, term in islice(function.curvature_terms(size), terms):
            seed, data = self._seed + number, term.data if size else ()
            matrix = gauss_newton(term, inputs, seed, strategy=self._strategy, data=data)
            matrix.add_parts(parts)
            fallbacks |= matrix.fallbacks
        return tuple(fallbacks.values()), terms / count

    def rows_by_symmetry(self) -> None:
        """Return None: all blocks are of the axis with fewer lines."""

    @property
    def kind(self) -> str:
        """What the matrix is made as: ``ggn`` or ``fisher``."""
        return self._function.kind

    def _matrix(self, term: CurvatureTerm, number: int, data: Sequence[Tensor] = ()) -> GaussNewton:
        seed = self._seed + number
        return gauss_newton(term, self._inputs, seed, strategy=self._strategy, data=data)

    def _first(self) -> GaussNewton:
        return self._matrix(next(self._function.curvature_terms())[1], 0)

    def _split(self, first: GaussNewton) -> int | None:
        """Return how many samples reverse mode differentiates at once; None for batches whole."""
        batch = next(self._function.curvature_terms())[1].samples
        if self._strategy in FORWARD or not batch:
            return None
        self._outputs = max(1, first.outputs.numel() // batch)
        most = self._most_samples(self._function.width)
        if self._is_apart(first, batch, min(batch, most)):
            return most
        self._join_samples()
        return None

    def _join_samples(self) -> None:
        """Differentiate batches whole, and say why."""
        self._samples_at_once = None
        self._pending.append(Fallback(self._strategy, "all samples of a batch at once", _NOT_APART))

    def _most_samples(self, width: int) -> int:
        """Return of how many samples J is formed at once, for a number of columns."""
        entries = _ENTRIES_AT_ONCE // (self._outputs * max(1, width))
        return max(1, entries, _ROWS_AT_ONCE // self._outputs)

    def _is_apart(self, first: GaussNewton, batch: int, size: int) -> bool:
        """Return whether samples of the first batch by themselves give what they do together."""
        tolerance = torch.finfo(self.dtype).eps ** 0.5
        part = self._samples_of_a_part = min(size, -(-batch // 2))
        values, outputs = [], []
        # A function may raise anything for fewer samples than it is made for.
        try:
            for number, term in self._function.curvature_terms(part):
                if number:
                    break
                if not outputs and not self._matrix(term, 0, term.data).has_independent_samples():
                    return False
                outputs.append(_outputs_at(term, self._inputs, self._seed))
                values.append(_loss_at(term, outputs[-1]))
        except (RuntimeError, ValueError, TypeError):
            return False
        pairs = ((torch.cat(outputs), first.outputs), (reduce(torch.add, values), first.value))
        return all(
            one.shape == other.shape
            and float((one - other).abs().max()) <= tolerance * float(other.abs().max())
            for one, other in pairs
        )

    def _evaluated(self) -> tuple[Tensor, list[int]]:
        """Return the loss and the number of samples of each batch, in one pass over the data.

        Where batches are differentiated whole their samples count as none. So are all from the
        first one on whose samples depend on one another.

        Raises:
            JobError: The loss has no curvature in the outputs of any term.
        """
        generator = torch.Generator().manual_seed(self._seed)
        values, lengths = [], []
        is_curved = self._may_be_zero or self._function.kind == "fisher"
        size = None if self._samples_at_once is None else self._samples_of_a_part
        for number, loss, terms in self._function.losses_and_terms(size):
            values.append(evaluated(loss, self._inputs, self._seed + number).detach())
            lengths.append(0)
            parts: list[Tensor] = []
            for term in terms:
                lengths[-1] += term.samples or 0
                if self._samples_at_once is not None:
                    parts.append(self._value(term, number))
                if not is_curved:
                    is_curved = has_curvature(self._matrix(term, number), generator)
            if parts and not _adds_up(parts, values[-1]):
                self._join_samples()
        require_curvature(self._function.kind, [is_curved])
        is_whole = self._samples_at_once is None
        return reduce(torch.add, values), [0] * len(lengths) if is_whole else lengths

    def _value(self, term: CurvatureTerm, number: int) -> Tensor:
        return _loss_at(term, _outputs_at(term, self._inputs, self._seed + number))


def _adds_up(parts: Sequence[Tensor], value: Tensor) -> bool:
    """Return whether losses of parts of a batch are together that of the batch."""
    difference = (reduce(torch.add, parts) - value.reshape(())).abs()
    size = reduce(torch.add, [part.abs() for part in parts])
    return not bool(difference > torch.finfo(value.dtype).eps ** 0.5 * size)


def has_curvature(matrix: GaussNewton, generator: torch.Generator) -> bool:
    """Return whether a loss has curvature in its outputs, or outputs that are not finite."""
    line = torch.randn(1, matrix.outputs.numel(), generator=generator)
    curved = matrix.curved(line.to(matrix.outputs.device))
    return bool(curved.any()) or not bool(torch.isfinite(matrix.outputs).all())


def require_curvature(kind: str, are_curved: Iterable[bool]) -> None:
    """Refuse losses without curvature in the outputs, of which all matrices are zero.

    Args:
        kind: ``ggn`` or ``fisher``, which needs none.
        are_curved: Whether each of them has curvature; only as many are asked as is needed.

    Raises:
        JobError: None has.
    """
    if kind != "fisher" and not any(are_curved):
        raise JobError(_NO_CURVATURE.format(kind=kind))


def gauss_newton(
    term: CurvatureTerm,
    inputs: Sequence[Tensor],
    seed: int,
    *,
    strategy: str = "vectorize",
    data: Sequence[Tensor] = (),
) -> GaussNewton:
    """Return the matrix of one term at a point.

    Args:
        term: The term.
        inputs: The tensors of the point.
        seed: The seed of torch's generators at each evaluation.
        strategy: The strategy.
        data: The data of the term, if samples are differentiated by themselves.
    """
    given, outputs = () if data else term.data, _outputs(term, seed)
    # Not the matrix itself, which would hold its memory by a circle of references.
    centre: list[Tensor] = []
    matrix = GaussNewton(
        lambda *tensors: outputs(*tensors, *given),
        lambda outputs: term.loss(outputs, centre[0]),
        inputs,
        data=data,
        strategy=strategy,
    )
    centre.append(matrix.outputs)
    return matrix


def _outputs(term: CurvatureTerm, seed: int) -> Callable[..., Tensor]:
    """Return the outputs of a term as a function that draws the same random numbers each time."""

    def outputs(*tensors: Tensor) -> Tensor:
        seed_generators(seed)
        # Copies: a function may work in place on its arguments.
        return term.outputs(*(each.clone() for each in tensors))

    return outputs


def _outputs_at(term: CurvatureTerm, point: Sequence[Tensor], seed: int) -> Tensor:
    outputs = _outputs(term, seed)
    return evaluated(lambda *tensors: outputs(*tensors, *term.data), point, seed).detach()


def _loss_at(term: CurvatureTerm, outputs: Tensor) -> Tensor:
    # As a derivative evaluates it: a loss may differentiate inside.
    with torch.enable_grad():
        return term.loss(outputs.clone().requires_grad_(), outputs).detach()


def curvature_value_and_product(
    operation: str,
    function: Curvature,
    inputs: Any,
    vector: Sequence[Tensor],
    *,
    seed: int,
    strategy: str = "reverse-loop",
) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the loss, a gradient, and a product, batch by batch.

    The matrix JᵀHJ at x is the Jacobian of g(y) = J(x)ᵀ ∇loss(f(y)) at y = x, where g is the
    gradient of the loss: differences of g along a direction are those of the function itself, and
    show what no mode of differentiation sees.

    Args:
        operation: ``vhp`` or ``hvp`` for the product of the matrix, which is symmetric, at the
            given point; ``vjp`` for g at the given point with J at that of the job.
        function: The loss.
        inputs: The point.
        vector: The vector of the product.
        seed: The seed of torch's generators.
        strategy: How tangents are pushed forward: ``forward-loop`` or ``reverse-loop``.

    Returns:
        The loss, the gradient (empty for ``vjp``), and the product.
    """
    point = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    is_of_second_order = operation in ("vhp", "hvp")
    base = [x.to(y.dtype) for x, y in zip(function.base, point, strict=True)]
    total: list[Tensor] = []
    for number, term in function.curvature_terms():
        matrix = gauss_newton(term, point if is_of_second_order else base, seed + number)
        outputs = matrix.outputs
        if not is_of_second_order:
            outputs = _outputs_at(term, point, seed + number)
        found = _at_outputs(term, matrix, outputs)
        if is_of_second_order:
            found += matrix.product(vector, strategy)
        total = found if not total else [a + b for a, b in zip(total, found, strict=True)]
    value, rest = total[0], total[1:]
    count = len(point)
    if is_of_second_order:
        return value, tuple(rest[:count]), tuple(rest[count:])
    return value, (), tuple(rest)


def _at_outputs(term: CurvatureTerm, matrix: GaussNewton, outputs: Tensor) -> list[Tensor]:
    """Return the loss of outputs and its gradient there, pulled back at the point of a matrix."""
    with torch.enable_grad():
        leaf = outputs.detach().clone().requires_grad_()
        value = term.loss(leaf, matrix.outputs)
        (cotangent,) = torch.autograd.grad(value, leaf)
    return [value.detach(), *matrix.pulled_back(cotangent)]
