"""The generalized Gauss-Newton matrix JᵀHJ of a loss over the outputs of a function.

J is the Jacobian of the outputs, H the Hessian of the loss with respect to the outputs (N. N.
Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", Neural
Computation 14, 2002). Neither the function is differentiated twice nor is H ever formed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from autodiff_core._block import AxisLayout
from autodiff_core._curvature.sample_jacobians import jacobian_of_samples, whole_jacobian
from autodiff_core._errors import Fallback
from autodiff_core._linearization.nesting import outside_inference_mode, recording
from autodiff_core._stream import BlockStream, blocks

_BY_COLUMNS = ("forward-mode", "forward-loop")


class GaussNewton:
    """JᵀHJ of one function and loss at a point; nothing of it is kept.

    Attributes:
        outputs: The outputs at the point, without a graph.
        layout: The tensors along its rows, and along its columns.
        dtype: The dtype of its entries.
        fallbacks: The fallbacks that were taken, without repetition.
    """

    def __init__(
        self,
        func: Callable[..., Tensor],
        loss: Callable[[Tensor], Tensor],
        inputs: Sequence[Tensor],
        *,
        data: Sequence[Tensor] = (),
        strategy: str = "vectorize",
    ) -> None:
        """Evaluate the outputs.

        Args:
            func: A function of the inputs, and after them of the data; it returns one real tensor.
            loss: A function of that tensor with one element; twice differentiable.
            inputs: The differentiated tensors.
            data: Tensors with a leading dimension over samples, as the outputs have: the outputs of
                a sample depend on its own data only. Without data each output may depend on all.
            strategy: ``vectorize`` and ``reverse-loop`` form J by reverse mode, of all samples at
                once or one by one, and multiply matrices. ``forward-mode`` and ``forward-loop``
                push unit vectors forward, multiply them by H and pull them back, many at once or
                one by one.

        Raises:
            TypeError: An input is complex, or the function returns something other than one real
                tensor.
            ValueError: The data and the outputs do not have the same leading dimension.
        """
        if any(each.is_complex() for each in inputs):
            raise TypeError(
                "ggn: complex inputs have no Gauss-Newton matrix; valid are real tensors"
            )
        self._func = func
        self._loss = loss
        self._inputs = tuple(each.detach() for each in inputs)
        self._data = tuple(data)
        self._strategy = strategy
        self._is_by_columns = strategy in _BY_COLUMNS
        # As a derivative evaluates it: a function may differentiate inside, or ask whether a
        # gradient is wanted.
        with recording(create_graph=True):
            leaves = (each.clone().requires_grad_() for each in self._inputs)
            outputs = self._whole(*(each.clone() for each in leaves))
        self.outputs = _checked(outputs, self._data)
        self.layout = AxisLayout.of(self._inputs)
        tensors = (*self._inputs, self.outputs)
        self.dtype = _promoted([each.dtype for each in tensors])
        self.fallbacks: dict[str, Fallback] = {}

    def _whole(self, *inputs: Tensor) -> Tensor:
        # A function may work in place on its arguments.
        return self._func(*inputs, *(each.clone() for each in self._data))

    def _report(self, fallback: Fallback) -> None:
        self.fallbacks.setdefault(str(fallback), fallback)

    @property
    def value(self) -> Tensor:
        """The loss at the point."""
        with recording(create_graph=True):
            return self._loss(self.outputs.clone().requires_grad_()).detach()

    def add_rows(self, rows: Tensor, total: Tensor, columns: Tensor | None = None) -> None:
        """Add some rows to others; the matrix is symmetric.

        Args:
            rows: The numbers of the rows, int64, ascending.
            total: What the rows are added to, in its own dtype: of shape (rows, columns).
            columns: The numbers of the columns, likewise; None for all.
        """
        self.add_parts([(rows, total, columns)])

    def add_parts(self, parts: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> None:
        """Add several parts of the matrix to others, for which J is formed once.

        Args:
            parts: The arguments of `add_rows`, of each part; rows and columns are ascending within
                a part.
        """
        counts = [len(rows) for rows, _, _ in parts]
        with outside_inference_mode():
            if self._is_by_columns:
                rows = torch.cat([rows for rows, _, _ in parts])
                found = self._pulled_back(self.curved(self._pushed_forward(rows)))
                for lines, (_, total, columns) in zip(found.split(counts), parts, strict=True):
                    total += lines if columns is None else lines.index_select(1, columns)
                return
            jacobian = self.jacobian()
            chosen = [each for rows, _, _ in parts for each in _chosen(jacobian, rows, self.layout)]
            curved = self.curved(torch.cat(chosen, dim=1).T)
            for lines, (_, total, columns) in zip(curved.split(counts), parts, strict=True):
                across = jacobian if columns is None else _chosen(jacobian, columns, self.layout)
                # Input by input: to concatenate them would take a tenth of the time (measured).
                sizes = [each.shape[1] for each in across]
                for part, of_input in zip(total.split(sizes, 1), across, strict=True):
                    part.addmm_(lines.to(total.dtype), of_input.to(total.dtype))

    def product(self, vector: Sequence[Tensor], strategy: str = "forward-loop") -> list[Tensor]:
        """Return JᵀHJ v by one pushforward, one product with H and one pullback.

        Args:
            vector: v, one tensor for each input.
            strategy: ``forward-loop`` pushes forward by dual numbers, ``reverse-loop`` by the
                double-backward trick.
        """
        with outside_inference_mode():
            pushed = self._stream("jvp", strategy, tuple(part.unsqueeze(0) for part in vector))
            image = self._times_hessian(pushed.block(0, 1).pieces[0], strategy)
        return self.pulled_back(image)

    def pulled_back(self, cotangent: Tensor) -> list[Tensor]:
        """Return Jᵀ times a vector over the outputs, one tensor for each input."""
        with outside_inference_mode():
            vectors = cotangent.reshape(1, *self.outputs.shape)
            pieces = self._stream("vjp", "reverse-loop", vectors).block(0, 1).pieces
        return [a.reshape(b.shape) for a, b in zip(pieces, self._inputs, strict=True)]

    def jacobian(self) -> Sequence[Tensor]:
        """Return J, for each input a tensor of shape (elements of the outputs, its elements)."""
        if self._data:
            return jacobian_of_samples(
                self._func, self._inputs, self._data, self._strategy, self._report
            )
        return whole_jacobian(self._whole, self._inputs, self._strategy)

    def curved(self, lines: Tensor) -> Tensor:
        """Return H times each of many vectors over the outputs.

        Args:
            lines: Shape (vectors, elements of the outputs).

        Returns:
            The same shape.
        """
        lines = lines.to(self.outputs.dtype)
        return lines if not lines.numel() else self._times_hessian(lines, "vectorize")

    def has_independent_samples(self, tolerance: float | None = None) -> bool:
        """Return whether the derivative of each sample's outputs by itself is that of all together.

        A random combination of the outputs is differentiated both ways. Batch normalization in
        training mode, for example, makes samples depend on one another.

        Args:
            tolerance: The largest relative error; None for the root of the precision.
        """
        u = torch.randn(self.outputs.shape, generator=torch.Generator().manual_seed(0))
        u = u.to(self.outputs)
        with outside_inference_mode():
            stream = self._stream("vjp", "reverse-loop", u.unsqueeze(0))
            together = torch.cat([piece[0] for piece in stream.block(0, 1).pieces])
            apart = torch.cat([u.reshape(-1) @ of_input for of_input in self.jacobian()])
        largest = float((apart - together).abs().max()) if together.numel() else 0.0
        size = float(together.abs().max()) if together.numel() else 0.0
        allowed = torch.finfo(self.dtype).eps ** 0.5 if tolerance is None else tolerance
        return largest <= allowed * size

    def _pushed_forward(self, rows: Tensor) -> Tensor:
        """Return J times the unit vectors of rows, of shape (rows, elements of the outputs)."""
        offsets = self.layout.offsets
        numbers, vectors = rows.unsqueeze(1), []
        for start, each in zip(offsets, self._inputs, strict=False):
            elements = torch.arange(start, start + each.numel(), device=rows.device)
            vectors.append((numbers == elements).to(each).reshape(-1, *each.shape))
        block = self._stream("jvp", self._strategy, tuple(vectors)).block(0, len(rows))
        for each in block.fallbacks:
            self._report(each)
        return block.values

    def _pulled_back(self, lines: Tensor) -> Tensor:
        strategy = "vectorize" if self._strategy == "forward-mode" else "reverse-loop"
        block = self._stream("vjp", strategy, self._like_outputs(lines)).block(0, len(lines))
        for each in block.fallbacks:
            self._report(each)
        return block.values

    def _times_hessian(self, lines: Tensor, strategy: str) -> Tensor:
        by_columns = strategy in _BY_COLUMNS
        try:
            stream = blocks(
                self._loss,
                self.outputs,
                operation="hvp" if by_columns else "vhp",
                strategy=strategy,
                vectors=self._like_outputs(lines),
                engine="plain",
                check_modes=False,
            )
            return stream.block(0, len(lines)).pieces[0]
        except NotImplementedError:
            # Of the backward passes of torch's own losses some have no forward derivative.
            if not by_columns:
                raise
            return self._times_hessian(lines, "reverse-loop")

    def _like_outputs(self, lines: Tensor) -> Tensor:
        return lines.reshape(len(lines), *self.outputs.shape)

    def _stream(self, operation: str, strategy: str, vectors: object) -> BlockStream:
        return blocks(
            self._whole,
            self._inputs,
            operation=operation,
            strategy=strategy,
            vectors=vectors,
            engine="plain",
            check_modes=False,
        )


def _chosen(jacobian: Sequence[Tensor], columns: Tensor, layout: AxisLayout) -> list[Tensor]:
    """Return columns of a matrix, which has a tensor for each input; no copies of adjacent ones."""
    bounds = torch.searchsorted(columns, torch.tensor(layout.offsets, device=columns.device))
    found = []
    for of_input, offset, first, last in zip(
        jacobian, layout.offsets, bounds.tolist(), bounds[1:].tolist(), strict=False
    ):
        numbers = columns[first:last] - offset
        if not len(numbers):
            continue
        start, stop = int(numbers[0]), int(numbers[-1]) + 1
        is_range = stop - start == len(numbers)
        found.append(of_input[:, start:stop] if is_range else of_input.index_select(1, numbers))
    return found


def _checked(outputs: object, data: Sequence[Tensor]) -> Tensor:
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        kind = outputs.dtype if isinstance(outputs, Tensor) else type(outputs).__name__
        raise TypeError(
            f"ggn: the function returned {kind}; valid is one tensor of real floating-point numbers"
        )
    samples = {tuple(each.shape[:1]) for each in (*data, *((outputs,) if data else ()))}
    if len(samples) > 1 or () in samples:
        shapes = ", ".join(str(tuple(each.shape)) for each in (*data, outputs))
        raise ValueError(
            "ggn: data and outputs need the same leading dimension over samples; their shapes are "
            f"{shapes}"
        )
    return outputs.detach()


def _promoted(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    found = dtypes[0]
    for each in dtypes[1:]:
        found = torch.promote_types(found, each)
    return found
