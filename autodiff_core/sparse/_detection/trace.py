"""The operators that a function, or its gradient, runs at a point.

The public module that exports torch's table of decompositions is slow to load, so this module, and
no other, imports the private one.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from autodiff_core._errors import first_line, is_out_of_memory
from autodiff_core._linearization.arguments import Arguments, FlatFunction
from autodiff_core._linearization.graph import custom_function, nodes_between
from autodiff_core._operations import MATRICES, OPERATIONS
from autodiff_core.sparse._detection.places import named
from autodiff_core.sparse._detection.recording import Recorder
from autodiff_core.sparse._detection.steps import Recording
from autodiff_core.sparse._errors import DetectionError


class Subject:
    """A function at a point, as a function of the differentiated tensors.

    Attributes:
        operation: The operation, ``jacobian`` or ``hessian``.
        primals: Copies of the differentiated tensors.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        inputs: Any,
        operation: str,
        argnums: int | Sequence[int] | None = None,
    ) -> None:
        """Check the inputs.

        Raises:
            TypeError: Inputs that are not tensors.
            ValueError: An operation without sparse derivatives.
            RuntimeError: Complex inputs.
        """
        if operation not in MATRICES:
            raise ValueError(f"operation={operation!r}: valid are {', '.join(MATRICES)}")
        self.operation = operation
        self._is_second_order = OPERATIONS[operation].is_second_order
        self._arguments = Arguments(inputs, argnums, operation)
        self._func = func
        leaves = self._arguments.differentiated.leaves
        if any(leaf.is_complex() for leaf in leaves):
            raise RuntimeError(f"{operation}: sparse derivatives support only real inputs")
        self.primals = tuple(leaf.detach().clone() for leaf in leaves)

    def function(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Evaluate the function itself."""
        return FlatFunction(self._func, self._arguments, self.operation, has_aux=False)(*leaves)

    def recording(self, check_time: Callable[[], None], *, is_local: bool) -> Recording:
        """Return what `differentiated` evaluates at the point.

        Args:
            check_time: Called for each operator; raises an error to end the recording.
            is_local: Whether conditions and positions are those at the point, or any.

        Raises:
            CustomFunctionError: The function uses a custom autograd.Function.
            DetectionError: The function cannot be evaluated, or not recorded.
        """
        recorder = Recorder(_decompositions(), check_time, is_local=is_local)
        leaves = [primal.clone().requires_grad_() for primal in self.primals]
        recorder.start(leaves)
        try:
            with warnings.catch_warnings(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
                warnings.simplefilter("ignore")
                with Conversions(recorder), recorder:
                    outputs = self.differentiated(leaves, recorder)
            return recorder.finish(outputs)
        except DetectionError:
            raise
        # The function can fail with an exception of any type.
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise DetectionError(
                f"{self.operation}: the function cannot be traced: {first_line(error)}"
            ) from error

    def differentiated(self, leaves: Sequence[Tensor], recorder: Recorder) -> Sequence[Tensor]:
        """Evaluate the function of which the matrix is the Jacobian: itself, or its gradient.

        Raises:
            CustomFunctionError: The function uses a custom autograd.Function.
        """
        # Copies, which a function may change in place.
        outputs = self.function(*(leaf.clone() for leaf in leaves))
        custom = {
            (name, recorder.place_of(node))
            for node in nodes_between(outputs, leaves)
            if (name := custom_function(node)) is not None
        }
        if custom:
            raise CustomFunctionError(custom)
        if not self._is_second_order:
            return outputs
        value = self._scalar(outputs)
        if not value.requires_grad:
            return tuple(map(torch.zeros_like, leaves))
        return torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)

    def shapes(self) -> list[tuple[int, ...]]:
        """Return the shapes of the tensors along the rows."""
        along = self.primals if self._is_second_order else self.function(*self.primals)
        return [tuple(tensor.shape) for tensor in along]

    def _scalar(self, outputs: Sequence[Tensor]) -> Tensor:
        if len(outputs) != 1 or outputs[0].numel() != 1:
            shapes = ", ".join(str(tuple(output.shape)) for output in outputs)
            raise RuntimeError(
                f"{self.operation}: func returned tensors of the shapes {shapes}; valid is one "
                "tensor with one element"
            )
        return outputs[0].reshape(())


class CustomFunctionError(DetectionError):
    """The function uses a custom autograd.Function, whose derivative its operators do not show.

    Attributes:
        functions: The functions, each by its name and its line.
    """

    def __init__(self, functions: set[tuple[str, str]]) -> None:
        """Keep the functions."""
        super().__init__(f"custom autograd.Function {', '.join(named(functions))}")
        self.functions = functions


class Conversions(TorchFunctionMode):
    """Notes where values leave torch, so that what is computed from them is constant."""

    _LEAVING = ("__array__", "numpy", "tolist")

    def __init__(self, recorder: Recorder) -> None:
        """Note them in a recorder."""
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a function of torch."""
        del types
        name = getattr(func, "__name__", "")
        if name in self._LEAVING and self._recorder.is_tracked(args[0]):
            self._recorder.freeze(name, f"numbers of shape {tuple(args[0].shape)}")
        return func(*args, **(kwargs or {}))


@functools.cache
def _decompositions() -> dict[Any, Any]:
    aten = torch.ops.aten
    table = dict(core_aten_decompositions())
    # Core operators whose decomposition gives a sharper result.
    table |= get_decompositions(
        [
            aten._softmax,
            aten._log_softmax,
            aten.native_layer_norm,
            aten.native_group_norm,
            aten._native_batch_norm_legit,
            aten._native_batch_norm_legit_no_training,
            aten.native_batch_norm,
            aten.addmm,
            aten.var,
            aten.elu,
            aten.embedding,
            aten.upsample_linear1d,
            aten.upsample_bilinear2d,
            aten.upsample_bicubic2d,
            aten.upsample_trilinear3d,
        ]
    )
    # Its own rule is sharper than its decomposition.
    table.pop(aten.roll.default)
    return table
