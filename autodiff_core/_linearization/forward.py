"""Forward-mode strategies: tangents pushed through the function with dual numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from autodiff_core._block import Axis
from autodiff_core._engines.batched import one_by_one
from autodiff_core._engines.choice import ALL
from autodiff_core._errors import (
    Fallback,
    explained,
    first_line,
    forward_refusal,
    is_out_of_memory,
    text_of,
)
from autodiff_core._linearization.adjoint import AdjointIdentity, random_vector
from autodiff_core._linearization.disagreement import disagreement
from autodiff_core._linearization.double_backward import pull
from autodiff_core._linearization.linearization import Linearization, Request
from autodiff_core._linearization.nesting import (
    dual_number,
    exclusive_forward_level,
    has_decompositions,
    is_wrapped,
)
from autodiff_core._linearization.steadiness import require_same_values
from autodiff_core._tensors.functionalization import maybe_wrapped
from autodiff_core._tensors.randomness import ReplayedRandomness
from autodiff_core._tensors.transformations import pushed
from autodiff_core._tensors.vectors import Vector, Vectors


@dataclass(frozen=True)
class _Way:
    """A way to push a tangent through a function.

    Attributes:
        is_grad_enabled: Whether the evaluation makes a graph, which takes memory. A function that
            calls autograd itself (forces as the gradient of an energy, say) needs one.
        is_transformed: Whether `torch.func.jvp` is used in place of dual numbers; within it a
            function can use forward mode itself.
    """

    is_grad_enabled: bool
    is_transformed: bool = False


_WAYS = (_Way(is_grad_enabled=False), _Way(is_grad_enabled=True), _Way(True, is_transformed=True))


class ForwardLoop(Linearization):
    """The function is evaluated on dual numbers once for each tangent."""

    axis = Axis.COLUMNS
    name = "forward-loop"

    def __init__(self, request: Request) -> None:
        """Evaluate the function at the point, and find a way that agrees with reverse mode.

        The graph of that evaluation gives one product in reverse mode, and is released. Nothing is
        evaluated where such a product is known.

        Raises:
            MissingForwardDerivativeError: Tangents cannot pass through the function.
            ModesDisagreeError: They can, but their images contradict reverse mode.
            ChangingFunctionError: A second evaluation returns other values.
        """
        super().__init__(request)
        self._randomness = ReplayedRandomness(request.primals)
        self._way = _WAYS[0]
        self._check_modes = request.check_modes
        self._given = request.tangent
        # The given tangent and its image, until that is asked for.
        self._pushed: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] | None = None
        if (known := request.known) is not None:
            self.outputs, self._precision = known.outputs, known.precision
            identity = AdjointIdentity(
                known.outputs, request.primals, known.cotangent, known.image, known.precision
            )
            self._choose_way(known.outputs, identity, None)
            return
        # A function may modify its arguments in place, or ask for the `grad` of a leaf.
        inputs = tuple(map(_copy if request.create_graph else _leaf_copy, request.primals))
        with explained(self.name), torch.enable_grad():
            outputs = self._function(*inputs)
        self.outputs = tuple(each if request.create_graph else each.detach() for each in outputs)
        # Later there is no graph to tell.
        with suppress(Exception):
            self._examine(outputs, inputs)
        self._choose_way(outputs, *self._identity(outputs, inputs))

    def pushforward(self, tangents: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        """Return Jacobian-vector products by dual numbers; see `Linearization.pushforward`.

        Raises:
            MissingForwardDerivativeError: An operator in the function has no forward derivative.
            ChangingFunctionError: An evaluation returns other values than the first.
        """
        with explained(self.name):
            return self._apply(tangents, start, stop)

    def _choose_way(
        self,
        outputs: Sequence[Tensor],
        identity: AdjointIdentity | None,
        no_reverse: Exception | None,
    ) -> None:
        """Choose the first way whose image of a random tangent fulfils the adjoint identity.

        Args:
            outputs: The outputs with their graph.
            identity: The adjoint identity; None if there is no reverse mode to compare with.
            no_reverse: Why it is missing; None inside another derivative.
        """
        tangent = self._trial_tangent(identity)
        refusals = []
        disagreeing = None
        for way in _WAYS:
            if self._create_graph and not way.is_grad_enabled:
                continue
            self._way = way
            try:
                image = self._push(tangent)
            # A function can fail on dual numbers with an exception of any type.
            except Exception as error:
                if is_out_of_memory(error) or isinstance(error, Warning):
                    raise
                refusals.append(error)
                continue
            if identity is None or identity.holds(
                _stacked(tangent), _stacked(image), even_if_infinite=False
            ):
                if no_reverse is not None:
                    reason = first_line(no_reverse)
                    self._report(Fallback(self.name, "not compared with reverse mode", reason))
                self._pushed = (tangent, image) if tangent is self._given else None
                return
            disagreeing = disagreeing or way
        if disagreeing is not None:
            self._accept(disagreeing, outputs)
            return
        refusal = forward_refusal(self.name, refusals[0], no_reverse)
        # An error that were its own cause would lead a reader of causes in a circle.
        raise refusal from (None if refusal is refusals[0] else refusals[0])

    def _trial_tangent(self, identity: AdjointIdentity | None) -> tuple[Tensor, ...]:
        given, primals = self._given, self._primals
        if given is not None and [x.shape for x in given] == [x.shape for x in primals]:
            return given
        # Nothing random may be drawn inside a transformation around the caller.
        if identity is None:
            return tuple(torch.ones_like(primal) for primal in primals)
        return random_vector(primals, seed=6)

    def _accept(self, way: _Way, outputs: Sequence[Tensor]) -> None:
        """Take a way whose images contradict reverse mode, if the caller allows that.

        Raises:
            ModesDisagreeError: The caller does not.
        """
        error = disagreement(outputs)
        if self._check_modes:
            raise error
        self._way = way
        self._report(Fallback(self.name, "disagrees with reverse mode", text_of(error)))

    def _identity(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor]
    ) -> tuple[AdjointIdentity | None, Exception | None]:
        """Return the adjoint identity from a product in reverse mode, or why there is none."""
        # Inside another derivative, that one compares its modes.
        if any(map(is_wrapped, (*inputs, *outputs))):
            return None, None
        cotangent = random_vector(outputs, seed=0)
        try:
            with explained(self.name):
                pulled = pull(outputs, inputs, cotangent, create_graph=False)
        # As for the ways.
        except Exception as error:
            if isinstance(error, Warning):
                raise
            return None, error
        return AdjointIdentity(outputs, self._primals, cotangent, pulled, self.precision()), None

    def _apply(self, tangents: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        if self._pushed is not None and (start, stop) == (0, 1):
            (given, image), self._pushed = self._pushed, None
            asked = tangents.stack(0, 1)
            if all(
                a is not None and torch.equal(a[0], b) for a, b in zip(asked, given, strict=True)
            ):
                return _stacked(image)
        return one_by_one(self._push, tangents, start, stop, keep_graph=self._create_graph)

    def _push(self, tangent: Vector) -> tuple[Tensor, ...]:
        """Return one product, by the dual numbers of torch's ordinary forward mode."""
        if self._way.is_transformed:
            with exclusive_forward_level():
                return self._push_under_transform(tangent)
        return _composed_where_needed(self._push_duals, tangent)

    def _push_under_transform(self, tangent: Vector) -> tuple[Tensor, ...]:
        """Return one product as `torch.func.jvp` does, which vmap can batch."""
        return _composed_where_needed(self._push_transformed, tangent)

    def _push_duals(self, tangent: Vector, *, decomposing: bool) -> tuple[Tensor, ...]:
        with (
            exclusive_forward_level(),
            self._randomness.replayed(),
            torch.set_grad_enabled(self._way.is_grad_enabled),
            forward_ad.dual_level(),
        ):
            inputs = [
                copy if part is None else dual_number(copy, part.clone(), decomposing=decomposing)
                for copy, part in zip(self._copies(), tangent, strict=True)
            ]
            duals = [forward_ad.unpack_dual(output) for output in self._function(*inputs)]
            require_same_values([dual.primal for dual in duals], self.outputs)
        return self._finished(
            torch.zeros_like(output) if dual.tangent is None else dual.tangent
            for output, dual in zip(self.outputs, duals, strict=True)
        )

    def _push_transformed(self, tangent: Vector, *, decomposing: bool) -> tuple[Tensor, ...]:
        touched = [index for index, part in enumerate(tangent) if part is not None]
        if not touched:
            return tuple(torch.zeros_like(output) for output in self.outputs)

        with self._randomness.replayed(), torch.set_grad_enabled(self._way.is_grad_enabled):
            copies = self._copies()

            def of_touched(*values: Tensor) -> tuple[Tensor, ...]:
                inputs = list(copies)
                for index, value in zip(touched, values, strict=True):
                    inputs[index] = value
                return self._function.under_transform(*inputs)

            values, images = pushed(
                of_touched,
                [copies[index] for index in touched],
                [part.clone() for part in tangent if part is not None],
                partial(dual_number, decomposing=decomposing),
            )
            require_same_values(values, self.outputs)
        return self._finished(images)

    def _copies(self) -> list[Tensor]:
        # A function may modify its arguments in place, and then their tangents too; expanded
        # tensors cannot be made dual.
        return [maybe_wrapped(_copy(primal)) for primal in self._primals]

    def _finished(self, images: Iterable[Tensor]) -> tuple[Tensor, ...]:
        # Under torch.func a 0-dim tensor of float32 times a number of Python is of float64.
        return tuple(
            (image if self._create_graph else image.detach()).to(output.dtype)
            for image, output in zip(images, self.outputs, strict=True)
        )


def _composed_where_needed(
    push: Callable[..., tuple[Tensor, ...]], tangent: Vector
) -> tuple[Tensor, ...]:
    """Push a tangent, with torch's compositions of operators if one has no forward derivative.

    To load them takes longer than a small derivative, and most functions need none.
    """
    decomposing = has_decompositions()
    try:
        return push(tangent, decomposing=decomposing)
    except NotImplementedError:
        if decomposing:
            raise
    return push(tangent, decomposing=True)


class ForwardMode(ForwardLoop):
    """The tangents of a whole chunk of vectors are pushed through at once under vmap."""

    name = "forward-mode"
    engines = ALL

    def __init__(self, request: Request) -> None:
        """Evaluate the function at the point, as `ForwardLoop` does."""
        super().__init__(request)
        self._batched = self._batched_by_engine(
            self._push_under_transform, self._push, request.primals
        )

    def _apply(self, tangents: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        with exclusive_forward_level():
            return self._batched(tangents, start, stop)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.clone()


def _leaf_copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def _stacked(vector: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(part[None] for part in vector)
