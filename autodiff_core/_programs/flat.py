"""Flat steps: the operators that a step ran, as one function of dense tensors.

A step decides anew at each call how it computes, by what is known of its stacks, and an operator
without a rule is batched by vmap each time. For dense stacks of one count all this gives the same
tensor operators, which a tracer notes once. The function made of them costs what the operators
cost.

If no dimension of a program is a multiple of the count, the sizes that are multiples of it are
those that depend on it. So what was noted for such a count gives the function for any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from autodiff_core._programs.recording import writes_into
from autodiff_core._programs.stacks import Stack
from autodiff_core._tensors.thresholds import noting_thresholds
from autodiff_core._tensors.tree import tensors_among

_aten = torch.ops.aten

FEW_ELEMENTS = 2**18
"""Fewer are computed in less time than it takes to keep account of which can differ from zero."""

_COUNTS = (3, 5, 7)
"""Small primes, of which sizes are seldom multiples."""

# torch's own functions are called in less time than its operators, which they call.
_DEFAULTS = (
    *("addcmul", "bmm", "cat", "clone", "constant_pad_nd", "cumsum", "diagonal", "flip"),
    *("index_select", "mm", "neg", "permute", "roll", "t", "unsqueeze"),
)
_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    **{getattr(_aten, name).default: getattr(torch, name) for name in _DEFAULTS},
    _aten.add.Tensor: torch.add,
    _aten.sub.Tensor: torch.sub,
    _aten.mul.Tensor: torch.mul,
    _aten.mul.Scalar: torch.mul,
    _aten.div.Tensor: torch.div,
    _aten.add.out: torch.add,
    _aten.addcmul.out: torch.addcmul,
    _aten.view.default: Tensor.view,
    _aten._unsafe_view.default: Tensor.view,
    _aten.select.int: torch.select,
    _aten.transpose.int: torch.transpose,
    _aten.expand.default: Tensor.expand,
    _aten.new_zeros.default: Tensor.new_zeros,
    _aten.sum.dim_IntList: torch.sum,
    _aten.mul_.Tensor: Tensor.mul_,
    _aten.add_.Tensor: Tensor.add_,
    _aten.copy_.default: Tensor.copy_,
}


def value_of(result: Stack | tuple[Tensor, ...]) -> Any:
    """Return a result as programs keep it: the data of a dense stack, None for zeros."""
    if isinstance(result, tuple):
        return result
    if result.dim is None or result.support is None:
        return result.data
    if not len(result.support):
        return None
    if result.diagonal and result.count > 1:
        return result
    if len(result.support) == result.shape[result.dim]:
        return result.spread().data
    is_small = result.count * math.prod(result.shape) < FEW_ELEMENTS
    return result.dense() if is_small and isinstance(result.support, Tensor) else result


def value_of_source(stack: Stack, *, is_cut_up: bool) -> Any:
    """Return the value of an argument: all one-hot vectors are written out if it is cut up.

    Of fewer vectors some parts are zero, and so are the steps that need these alone.
    """
    size = math.prod(stack.shape)
    is_whole = stack.diagonal and stack.count == size and size**2 < FEW_ELEMENTS
    return stack.dense() if is_whole and is_cut_up else value_of(stack)


def as_stack(value: Any) -> Any:
    """Return a value that is not zero as a stack; what several steps share stays a tuple."""
    return Stack(value, tuple(value.shape[1:])) if isinstance(value, Tensor) else value


@dataclass(slots=True)
class Flat:
    """The operators of a step for dense stacks of one count.

    Attributes:
        strides: The strides of the stacks' data, which decide what is a view and what a copy.
        run: Computes the data of the result from those of the stacks.
        like: The result without data; None if it is dense.
    """

    strides: tuple[tuple[int, ...], ...]
    run: Callable[..., Any]
    like: Stack | None

    def fits(self, given: Sequence[Any]) -> bool:
        """Return whether values are dense and lie in memory as those that were traced."""
        for each, strides in zip(given, self.strides, strict=True):
            if type(each) is not Tensor or each.stride() != strides:
                return False
        return True

    def result(self, given: Sequence[Tensor]) -> Any:
        """Return the value that the step gives."""
        found = self.run(*given)
        like = self.like
        return found if like is None else Stack(found, like.shape, like.dim, like.support)


@dataclass(slots=True)
class Form:
    """The operators of a step for dense stacks of any count, noted for one.

    Attributes:
        count: The count that they were noted for.
        make: Returns the function for a count, of the constants.
        constants: The constants that the function takes.
        strides: The strides of the stacks' data for that count.
        like: The result without data; None if it is dense.
        thresholds: What was compared with thresholds while they were noted, and these.
    """

    count: int
    make: Callable[..., Callable[..., Any]]
    constants: list[Any]
    strides: tuple[tuple[int, ...], ...]
    like: Stack | None
    thresholds: list[tuple[int, int]]

    def at(self, count: int) -> Flat | None:
        """Return the flat step for a count; None if the step may compute otherwise for it."""
        own, strides = self.count, self.strides
        if count != own:
            for amount, threshold in self.thresholds:
                if (amount // own * count >= threshold) != (amount >= threshold):
                    return None
            strides = tuple(
                [
                    tuple([each if each % own else each // own * count for each in of_one])
                    for of_one in strides
                ]
            )
        return Flat(strides, self.make(count, *self.constants), self.like)


def flats_at(forms: Mapping[int, Form], count: int) -> dict[int, Flat]:
    """Return the flat steps for a count that their forms give, by their numbers."""
    if count < 2:
        return {}  # of one vector, other dimensions may be adjacent
    found = {number: form.at(count) for number, form in forms.items()}
    return {number: flat for number, flat in found.items() if flat is not None}


def count_to_note(shapes: Iterable[Sequence[int]]) -> int | None:
    """Return a count of which no size is a multiple, None if no small one is.

    Args:
        shapes: The shapes of single vectors.
    """
    sizes = {size for shape in shapes for size in shape if size}
    return next((each for each in _COUNTS if all(size % each for size in sizes)), None)


class Tracer:
    """Notes the operators that one step after the other applies to its stacks.

    Attributes:
        for_any_count: Whether what is noted is to give the functions for other counts too.
    """

    def __init__(self, *, for_any_count: bool = False) -> None:
        """Note nothing until a step begins."""
        self.for_any_count = for_any_count
        self._noting = _Noting()

    def traced(self, apply: Callable[[], Any], given: Sequence[Tensor]) -> tuple[Any, Form | None]:
        """Return what a step gives, and its operators; None if they do not repeat the step.

        Args:
            apply: Applies the step.
            given: The data of its stacks, which are dense.
        """
        count = len(given[0])
        self._noting.source = source = _Source(count if self.for_any_count else 0)
        strides = tuple([data.stride() for data in given])
        for data in given:
            source.argument(data)
        with noting_thresholds() as thresholds, self._noting:
            result = apply()
        if source.is_unusable:
            return result, None
        if isinstance(result, tuple):
            made, like = source.function(result), None
        else:
            data = result.spread().data
            made = source.function(data)
            is_dense = result.dim is None
            like = None if is_dense else Stack(data[:0], result.shape, result.dim, result.support)
        return result, None if made is None else Form(count, *made, strides, like, thresholds)


class _Noting(TorchDispatchMode):
    """Notes each operator.

    Attributes:
        source: Where it is noted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.source = _Source(0)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # As for the recorder: skipping would load torch's compiler.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.source.note(func, args, kwargs, result)
        return result


class _Source:
    """The text of a function, and the constants that its names stand for.

    Args:
        count: The count of the stacks if sizes that are multiples of it depend on it; otherwise 0.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self.is_unusable = False
        self._names: dict[int, str] = {}
        # The identity of a tensor is unique only while the tensor is alive.
        self._alive: list[Any] = []
        self._arguments: list[str] = []
        self._constants: list[Any] = []
        # A call, the names that its result is assigned to, the names that it takes and makes.
        self._lines: list[tuple[str, str, set[str], list[str]]] = []

    def argument(self, tensor: Tensor) -> None:
        """Name the next argument of the function."""
        # Of two arguments that are one tensor, a line could not tell which it takes.
        self.is_unusable |= id(tensor) in self._names
        self._arguments.append(self._named(tensor))

    def note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Add the line that repeats an operator, if it receives a named tensor."""
        tensors = tensors_among(args, kwargs)
        names, places = self._names, writes_into(func)
        used = {names[id(each)] for each in tensors if id(each) in names}
        sizes = _sizes_of(func) if self._count else _NO_SIZES
        if not used and not self._has_sizes_of_count(sizes, args, kwargs):
            # A constant that is modified would have to be made anew each time.
            self.is_unusable |= bool(places)
            return
        written = [args[place] if place < len(args) else kwargs.get(name) for place, name in places]
        is_constant_written = any(
            isinstance(each, Tensor) and id(each) not in names for each in written
        )
        if is_constant_written or any(map(Tensor._is_zerotensor, tensors)):
            self.is_unusable = True
            return
        function = self._constant(_FUNCTIONS.get(func, func))
        given = [
            self._text_of_sizes(each) if place in sizes else self._text(each)
            for place, each in enumerate(args)
        ]
        for name, each in kwargs.items():
            text = self._text_of_sizes(each) if name in sizes else self._text(each)
            given.append(f"{name}={text}")
        call = f"{function}({', '.join(given)})"
        # An operator that reads a number gives no tensor.
        if isinstance(result, Tensor):
            made = [self._named(result)]
            self._lines.append((call, made[0], used, made))
        elif isinstance(result, tuple | list):
            made = [self._named(each) if isinstance(each, Tensor) else "_" for each in result]
            self._lines.append((call, f"{', '.join(made)},", used, made))
        else:
            self.is_unusable = True

    def function(
        self, result: Tensor | tuple[Tensor, ...]
    ) -> tuple[Callable[..., Callable[..., Any]], list[Any]] | None:
        """Return what makes the function that returns a result, and the constants in it.

        None if the result does not depend on arguments.
        """
        parts = result if isinstance(result, tuple) else (result,)
        if any(id(part) not in self._names for part in parts):
            return None
        names = [self._names[id(part)] for part in parts]
        is_one_line = len(self._lines) == 1 and isinstance(result, Tensor)
        if is_one_line and self._lines[0][1] == names[0]:
            body = f"    return {self._lines[0][0]}\n"
        else:
            returned = f"({', '.join(names)},)" if isinstance(result, tuple) else names[0]
            lines = [*self._lines_with_deletions(set(names)), f"return {returned}"]
            body = "".join([f"    {line}\n" for line in lines])
        given = ", ".join(["n", *[f"c{number}" for number in range(len(self._constants))]])
        run = f"  def run({', '.join(self._arguments)}):\n{body}  return run\n"
        return made(f"def make({given}):\n{run}"), self._constants

    def _lines_with_deletions(self, kept: set[str]) -> list[str]:
        """Return the lines, each followed by the deletion of what is not used any more."""
        found: list[str] = []
        seen = kept | set(self._arguments)
        for call, target, used, made in reversed(self._lines):
            last = sorted({*used, *made} - seen - {"_"})
            seen |= set(last)
            if last:
                found.append(f"del {', '.join(last)}")
            found.append(f"{target} = {call}")
        return found[::-1]

    def _named(self, tensor: Tensor) -> str:
        name = self._names.get(id(tensor))
        if name is None:
            name = self._names[id(tensor)] = f"t{len(self._names)}"
            self._alive.append(tensor)
        return name

    def _text(self, value: Any) -> str:
        kind = type(value)
        if kind is int or value is None or kind is bool:
            return repr(value)
        if kind is list:
            return f"[{', '.join([self._text(each) for each in value])}]"
        if kind is tuple:
            return f"({''.join([f'{self._text(each)}, ' for each in value])})"
        return self._names.get(id(value)) or self._constant(value)

    def _has_sizes_of_count(
        self, sizes: frozenset[int | str], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """Return whether a size among the arguments of an operator depends on the count."""
        given = [each for place, each in enumerate(args) if place in sizes]
        given += [each for name, each in kwargs.items() if name in sizes]
        return any("n" in self._text_of_sizes(each) for each in given if each is not None)

    def _text_of_sizes(self, value: Any) -> str:
        """Return the text of sizes for any count."""
        if isinstance(value, list | tuple):
            return f"[{', '.join(map(self._text_of_sizes, value))}]"
        if type(value) is not int or value < 1 or value % self._count:
            return self._text(value)
        factor = value // self._count
        return "n" if factor == 1 else f"{factor} * n"

    def _constant(self, value: Any) -> str:
        self._constants.append(value)
        return f"c{len(self._constants) - 1}"


_SIZES = ("size", "sizes", "shape", "input_size", "input_sizes", "self_size", "self_sizes", "N")

_NO_SIZES: frozenset[int | str] = frozenset()


@cache
def _sizes_of(func: Any) -> frozenset[int | str]:
    """Return the places and the names of the arguments of an operator that are sizes of tensors.

    Strides are, beside the sizes of what they make; those of a convolution are not.
    """
    names = [each.name for each in func._schema.arguments]
    found = [*_SIZES, "stride"] if "size" in names else _SIZES
    places = [place for place, name in enumerate(names) if name in found]
    return frozenset((*places, *found))


@lru_cache(maxsize=4000)
def made(text: str) -> Callable[..., Any]:
    """Return the function `make` that a text defines; a long program shares few texts."""
    names: dict[str, Any] = {}
    exec(compile(text, "<flat steps>", "exec"), names)
    return names["make"]
