"""Record the operators that a function runs at a point.

The function is evaluated on numbers, so that branches on values, lists of indices and whatever else
it computes from the point are those at the point. What depends on the inputs and has a derivative
is recorded; integers and truth values are constants of the recording, as they are of the
derivative.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from autodiff_core.sparse._detection.aliasing import Storages
from autodiff_core.sparse._detection.places import Places
from autodiff_core.sparse._detection.selections import EXPANSIONS, bound
from autodiff_core.sparse._detection.steps import Constant, Meta, Recording, Ref, Step
from autodiff_core.sparse._errors import DetectionError

_MULTIPLICATIONS = ("bmm", "div", "mm", "mul")
"""Operators whose result is zero, whatever the other operand is, where one is a constant zero."""

_SHAPE_ONLY = {
    "_has_same_storage_numel", "empty_like", "full_like", "is_same_size", "new_empty",
    "new_empty_strided", "new_full", "new_ones", "new_zeros", "ones_like", "rand_like",
    "randint_like", "randn_like", "sym_numel", "sym_size", "sym_storage_offset", "sym_stride",
    "zeros_like",
}  # fmt: skip
"""Operators that read only the shape of their operand."""

_RANDOM = {
    "bernoulli", "binomial", "cauchy", "exponential", "geometric", "log_normal", "multinomial",
    "normal", "poisson", "random", "uniform",
}  # fmt: skip
"""Operators whose random results have no derivative by their operands."""

_BY_MEMORY = {
    "as_strided", "as_strided_", "squeeze_", "swapaxes_", "swapdims_", "t_", "transpose_",
    "unsqueeze_",
}  # fmt: skip
"""Views that are no steps: their elements are found by their places in the memory."""

_CONSTANT_WRITES = {"fill", "zero"} | _RANDOM
"""Operators in place after which a tensor has nothing of what it had."""

_WITH_SPARSE = {"_sparse_addmm", "_sparse_mm", "addmm", "mm", "mv"}
"""Operators with a rule for a constant sparse matrix, which their decomposition does not take."""

_UNNOTED = ("_linalg", "linalg", "lu_")
"""Operators whose integers do not decide on the pattern: it is dense in the block."""


class Recorder(TorchDispatchMode):
    """Records operators while a function is evaluated inside of this context.

    Attributes:
        is_freezing: Whether conditions and positions are those at the point.
    """

    def __init__(
        self, decompositions: dict[Any, Any], check_time: Callable[[], None], *, is_local: bool
    ) -> None:
        """Start without any step.

        Args:
            decompositions: How operators are computed by simpler ones.
            check_time: Called for each operator; raises an error to end the recording.
            is_local: Whether conditions and positions are those at the point, or, as far as a
                pattern can cover them, any.
        """
        super().__init__()
        self._decompositions = decompositions
        self._check_time = check_time
        self._is_local = self.is_freezing = is_local
        self._storages = Storages(self._record_raw)
        self._steps: list[Step] = []
        self._places = Places()
        self._frozen: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def start(self, inputs: Sequence[Tensor]) -> None:
        """Take tensors as the inputs, whose elements are numbered in this order."""
        for number, tensor in enumerate(inputs):
            self._storages.put(tensor, Ref(None, number))

    def finish(self, outputs: Sequence[Tensor]) -> Recording:
        """Return what was recorded for outputs."""
        found = [self._storages.argument(output) for output in outputs]
        frozen = []
        for (place, name), count in self._frozen.items():
            times = f", {count} times" if count > 1 else ""
            where = f" at {place}" if place else ""
            frozen.append(f"{name}{where}: {self._first[place, name]}{times}")
        return Recording(self._steps, found, tuple(frozen))

    def freeze(self, name: str, value: str) -> None:
        """Note that the recording holds a value of the point."""
        key = (self._places.current(), name)
        self._first.setdefault(key, value)
        self._frozen[key] += 1

    def place_of(self, node: Any) -> str:
        """Return the line of the operator, or custom function, that made a node of the graph."""
        return self._places.of(node)

    def known_as(self, result: Tensor, recorded: Tensor) -> Tensor:
        """Return a result, which from now on depends on what a recorded tensor depends on."""
        source = self._storages.argument(recorded)
        if isinstance(source, Ref):
            self._storages.put(result, source)
        return result

    def is_tracked(self, tensor: Any) -> bool:
        """Return whether an argument is a tensor that may depend on inputs."""
        return isinstance(tensor, Tensor) and self._storages.is_tracked(tensor)

    @contextmanager
    def freezing(self, is_freezing: bool) -> Any:
        """Return a context that records, with conditions frozen or not."""
        before, self.is_freezing = self.is_freezing, is_freezing
        try:
            with self:
                yield
        finally:
            self.is_freezing = before

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator, and record it where it depends on inputs."""
        del types
        kwargs = kwargs or {}
        self._check_time()
        name = func.overloadpacket.__name__
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        if any(each.is_meta for each in tensors):  # has no numbers, only a shape
            return func(*args, **kwargs)
        if not any(map(self.is_tracked, tensors)):
            if func._schema.is_mutable:
                for tensor in _written(func, args, kwargs):
                    self._storages.keep_constant(tensor)
            return func(*args, **kwargs)
        if name in _SHAPE_ONLY or name in _RANDOM or name in _BY_MEMORY:
            return func(*args, **kwargs)
        if self.is_freezing and name in EXPANSIONS:
            found = EXPANSIONS[name](self, func, bound(func, args, kwargs))
            if found is not NotImplemented:
                return found
        if name not in _WITH_SPARSE or not _has_sparse((args, kwargs)):
            found = self._decomposed(func, args, kwargs)
            if found is not NotImplemented:
                return found
        if func._schema.is_mutable:
            return self._changed_in_place(func, args, kwargs)
        return self._recorded(func, args, kwargs)

    def _decomposed(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        # What a decomposition selects by is no decision of the function.
        if func in self._decompositions:
            with self.freezing(False):
                return self._decompositions[func](*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), torch._C.DispatchKey.CompositeImplicitAutograd
        ):
            with self:
                return func.decompose(*args, **kwargs)
        return NotImplemented

    def _changed_in_place(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute a result by the operator without change, and copy it into its target."""
        name = func.overloadpacket.__name__
        written = _written(func, args, kwargs)
        functional = _without_change(func)
        if len(written) != 1 or (functional is None and name[:-1] not in _CONSTANT_WRITES):
            place = self._places.current()
            raise DetectionError(
                f"{name}{f' ({place})' if place else ''} changes tensors in place, which is not "
                "supported"
            )
        (target,) = written
        if name[:-1] in _CONSTANT_WRITES and not any(map(self.is_tracked, args[1:])):
            self._storages.keep_constant(target)
            result = func(*args, **kwargs)
            self._storages.write(target, Constant(target.detach().clone()))
            return result
        without = {key: value for key, value in kwargs.items() if value is not target}
        run: Any = functional
        with self:
            result = run(*args, **without)
            if result.shape != target.shape or result.dtype != target.dtype:
                result = result.to(target.dtype).expand(target.shape)
        self._storages.keep_constant(target)
        source = self._storages.argument(result)
        if target.dtype.is_floating_point or target.dtype.is_complex:
            self._storages.write(target, source)
        target.copy_(result)
        return target

    def _recorded(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = tree_map(self._argument, args), tree_map(self._argument, kwargs)
        zeros = self._zeros(func, args)
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        leaves = [result] if isinstance(result, Tensor) else result
        if not isinstance(leaves, (list, tuple)):
            self.freeze("item" if name == "_local_scalar_dense" else name, repr(result))
            return result
        tensors = [each for each in leaves if isinstance(each, Tensor)]
        if not any(map(_has_derivative, tensors)) and not self._is_open(func):
            for each in tensors:
                self.freeze(name, _described(each))
            return result
        metas = tuple(
            Meta(tuple(each.shape), each.dtype) if isinstance(each, Tensor) else None
            for each in leaves
        )
        step = Step(func, *given, metas, isinstance(result, Tensor), self._places.current(), zeros)
        self._steps.append(step)
        for number, each in enumerate(leaves):
            if isinstance(each, Tensor) and (_has_derivative(each) or self._is_open(func)):
                self._put(each, Ref(step, number), name)
            elif isinstance(each, Tensor) and not name.startswith(_UNNOTED):
                self.freeze(name, _described(each))
        return result

    def _is_open(self, func: Any) -> bool:
        """Return whether a result without derivative is not held at its value."""
        return not self.is_freezing and torch.Tag.pointwise in func.tags

    def _put(self, result: Tensor, ref: Ref, name: str) -> None:
        if result.layout is not torch.strided:
            place = self._places.current()
            raise DetectionError(
                f"{name}{f' ({place})' if place else ''} returns a sparse tensor that depends on "
                "the inputs, which is not supported"
            )
        self._storages.put(result, ref)

    def _argument(self, argument: Any) -> Any:
        return self._storages.argument(argument) if isinstance(argument, Tensor) else argument

    def _zeros(self, func: Any, args: tuple[Any, ...]) -> dict[int, Tensor]:
        if func.overloadpacket.__name__ not in _MULTIPLICATIONS:
            return {}
        found = {n: each == 0 for n, each in enumerate(args) if self.is_tracked(each)}
        return {n: zeros.cpu() for n, zeros in found.items() if bool(zeros.any())}

    def _record_raw(
        self, target: Any, arguments: Any, shape: Sequence[int], dtype: torch.dtype
    ) -> Ref:
        step = Step(target, tuple(arguments), {}, (Meta(tuple(shape), dtype),), True, "")
        self._steps.append(step)
        return Ref(step)


def _has_derivative(tensor: Tensor) -> bool:
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex


def _has_sparse(given: Any) -> bool:
    return any(
        isinstance(each, Tensor) and each.layout is not torch.strided for each in tree_leaves(given)
    )


def _described(tensor: Tensor) -> str:
    if tensor.dtype is torch.bool:
        return f"{int(tensor.sum())} of {tensor.numel()} true"
    if tensor.numel() == 1:
        return str(tensor.item())
    return f"integers of shape {tuple(tensor.shape)}"


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the tensors that an operator changes in place."""
    schema = func._schema.arguments
    given = dict(zip((each.name for each in schema), args, strict=False)) | kwargs
    names = [each.name for each in schema if each.alias_info and each.alias_info.is_write]
    return [each for each in tree_leaves([given.get(name) for name in names]) if each is not None]


@functools.cache
def _without_change(func: Any) -> Any:
    """Return the operator that computes what another one writes in place; None if there is none."""
    packet = getattr(torch.ops.aten, func.overloadpacket.__name__.removesuffix("_"), None)
    given = _parameters(func)
    overloads = () if packet is None else (getattr(packet, each) for each in packet.overloads())
    fitting = (f for f in overloads if not f._schema.is_mutable and _parameters(f) == given)
    return next(fitting, None)


def _parameters(func: Any) -> list[tuple[str, str]]:
    return [(each.name, str(each.type)) for each in func._schema.arguments if not each.is_out]
