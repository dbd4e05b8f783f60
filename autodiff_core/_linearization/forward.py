"""Forward-mode strategies: tangents pushed through the function with dual numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from autodiff_core._block import Axis
from autodiff_core._engines.batched import one_by_one
from autodiff_core._engines.choice import ALL
from autodiff_core._errors import explained
from autodiff_core._linearization.linearization import Linearization, Request
from autodiff_core._tensors.randomness import ReplayedRandomness
from autodiff_core._tensors.vectors import Vector, Vectors


class ForwardLoop(Linearization):
    """The function is evaluated on dual numbers once for each tangent."""

    axis = Axis.COLUMNS
    name = "forward-loop"

    def __init__(self, request: Request) -> None:
        """Evaluate the function at the point once, for the shapes of its outputs."""
        super().__init__(request)
        self._randomness = ReplayedRandomness(request.primals)
        self._is_grad_enabled = request.create_graph
        self.outputs = self._first_outputs()

    def pushforward(self, tangents: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        """Return Jacobian-vector products by dual numbers; see `Linearization.pushforward`.

        Raises:
            MissingForwardDerivativeError: An operator in the function has no forward derivative.
        """
        with explained(self.name):
            return self._apply(tangents, start, stop)

    def _first_outputs(self) -> tuple[Tensor, ...]:
        try:
            return self._evaluate()
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
        # A function that calls autograd itself (forces as the gradient of an energy, say) needs
        # arguments with a graph; without such a call the memory of a graph is saved.
        self._is_grad_enabled = True
        return self._evaluate()

    def _evaluate(self) -> tuple[Tensor, ...]:
        with explained(self.name), torch.set_grad_enabled(self._is_grad_enabled):
            outputs = self._function(*self._copies())
        return outputs if self._create_graph else tuple(output.detach() for output in outputs)

    def _apply(self, tangents: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        return one_by_one(self._push, tangents, start, stop, keep_graph=self._create_graph)

    def _push(self, tangent: Vector) -> tuple[Tensor, ...]:
        """Return one product, by the dual numbers of torch's ordinary forward mode."""
        with (
            self._randomness.replayed(),
            torch.set_grad_enabled(self._is_grad_enabled),
            forward_ad.dual_level(),
        ):
            inputs = [
                copy if part is None else forward_ad.make_dual(copy, part.clone())
                for copy, part in zip(self._copies(), tangent, strict=True)
            ]
            tangents = [
                forward_ad.unpack_dual(output).tangent for output in self._function(*inputs)
            ]
        return self._finished(
            torch.zeros_like(output) if part is None else part
            for output, part in zip(self.outputs, tangents, strict=True)
        )

    def _graph(self) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        copies = [p.detach().clone().requires_grad_(p.requires_grad) for p in self._primals]
        with self._randomness.replayed(), torch.enable_grad():
            return self._function(*copies), copies

    def _copies(self) -> list[Tensor]:
        # A function may modify its arguments in place, and then their tangents too; expanded
        # tensors cannot be made dual.
        return [primal.clone() for primal in self._primals]

    def _finished(self, images: Iterable[Tensor]) -> tuple[Tensor, ...]:
        # Under torch.func a 0-dim tensor of float32 times a number of Python is of float64.
        return tuple(
            (image if self._create_graph else image.detach()).to(output.dtype)
            for image, output in zip(images, self.outputs, strict=True)
        )


class ForwardMode(ForwardLoop):
    """The tangents of a whole chunk of vectors are pushed through at once under vmap."""

    name = "forward-mode"
    engines = ALL

    def __init__(self, request: Request) -> None:
        """Evaluate the function at the point once, as `ForwardLoop` does."""
        super().__init__(request)
        self._batched = self._batched_by_engine(
            self._push_under_transform, self._push, request.primals
        )

    def _apply(self, tangents: Vectors, start: int, stop: int) -> tuple[Tensor, ...]:
        return self._batched(tangents, start, stop)

    def _push_under_transform(self, tangent: Vector) -> tuple[Tensor, ...]:
        """Return one product by `torch.func.jvp`, which vmap can batch."""
        touched = [index for index, part in enumerate(tangent) if part is not None]
        if not touched:
            return tuple(torch.zeros_like(output) for output in self.outputs)

        with self._randomness.replayed(), torch.set_grad_enabled(self._is_grad_enabled):
            copies = self._copies()

            def of_touched(*values: Tensor) -> tuple[Tensor, ...]:
                inputs = list(copies)
                for index, value in zip(touched, values, strict=True):
                    inputs[index] = value
                return self._function.under_transform(*inputs)

            pushed = torch.func.jvp(
                of_touched,
                tuple(copies[index] for index in touched),
                tuple(part.clone() for part in tangent if part is not None),
            )[1]
        return self._finished(pushed)
