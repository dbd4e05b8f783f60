"""Segments of a program for which kernels are worth compiling.

Those that repeat with other constants, such as time steps, layers and iterations, share a kernel.
Elsewhere a segment is what lies between two products and can be fused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CellType, FunctionType
from typing import Any

import torch
from torch import Tensor

from autodiff_core._programs.flat import Flat
from autodiff_core._programs.steps import Step

LONGEST = 100
"""The largest number of steps in a segment: compiling more takes minutes."""

SHORTEST = 4
"""The smallest number of steps in a segment: calling a kernel takes as long as some operators."""

_FEWEST = 4
"""The smallest number of repetitions."""

_MOST_GROUPS = 4
"""The largest number of kernels: each is compiled for seconds."""

_SMALLEST_SHARE = 0.1
"""The smallest share of a program's steps for which a kernel is compiled."""

WORKING = frozenset(("combine", "gather", "join", "pad", "sum"))
FUSIBLE = WORKING | {"reshape", "permute", "expand", "cut"}
"""The kinds of steps that a kernel computes in one pass with others; some of them are views."""

Line = tuple[int, Step, tuple[int, ...], list[int]]
"""A step with its number, its inputs, and the results that are not used after it."""


@dataclass(frozen=True)
class Segment:
    """Consecutive flat steps of dense stacks.

    Attributes:
        first: The number of the first step.
        numbers: The numbers of the steps.
        inputs: The numbers of the results that it takes from other steps, with their strides.
        outputs: The numbers of the results that it gives to other steps.
        wiring: For each step where its inputs come from: a step of the segment, or an input.
        constants: The tensors that its steps hold.
        run: Computes the outputs from inputs and constants.
    """

    first: int
    numbers: frozenset[int]
    inputs: dict[int, tuple[int, ...]]
    outputs: tuple[int, ...]
    wiring: tuple[tuple[int, ...], ...]
    constants: tuple[Tensor, ...]
    run: Callable[..., Sequence[Tensor]]

    def fits(self, results: Mapping[int, Any]) -> bool:
        """Return whether all inputs are dense and lie in memory as those that were traced."""
        return all(
            type(results[number]) is Tensor and results[number].stride() == strides
            for number, strides in self.inputs.items()
        )

    def images(self, results: Mapping[int, Any]) -> dict[int, Tensor]:
        """Return the outputs by their numbers."""
        given = [results[number] for number in self.inputs]
        return dict(zip(self.outputs, self.run(*given, *self.constants), strict=True))


def segments(
    order: Sequence[Line], flats: Mapping[int, Flat], outputs: Sequence[int | None]
) -> list[list[Segment]]:
    """Return segments that are worth compiling, in groups, those first that cover most steps.

    All of a group have one `run` but for their constants, and take and give results in one order.

    Args:
        order: The steps.
        flats: The flat forms of the steps.
        outputs: The numbers of the results that are the program's images.
    """
    places = {number: place for place, (number, *_) in enumerate(order)}
    kinds = list(_kinds(order, flats, places))
    users: dict[int, int] = {}
    for place, (_, _, inputs, _) in enumerate(order):
        users.update(dict.fromkeys(inputs, place))
    users.update({output: len(order) for output in outputs if output is not None})
    groups = _repetitions(order, flats, users, kinds)
    alike: dict[Any, list[Segment]] = {}
    for part in _runs(order, kinds):
        lines = order[part.start : part.stop]
        given = [place for place, (number, *_) in enumerate(lines) if users[number] >= part.stop]
        segment = _segment(lines, flats, given)
        kind = tuple(given), segment.wiring, tuple(_kind(flats[number]) for number, *_ in lines)
        alike.setdefault(kind, []).append(segment)
    fewest = _SMALLEST_SHARE * len(order)
    groups = [group for group in [*groups, *alike.values()] if _steps(group) >= fewest]
    return sorted(groups, key=_steps, reverse=True)[:_MOST_GROUPS]


def _steps(group: Sequence[Segment]) -> int:
    return sum(len(each.numbers) for each in group)


def _repetitions(
    order: Sequence[Line], flats: Mapping[int, Flat], users: Mapping[int, int], kinds: list[int]
) -> list[list[Segment]]:
    """Return the segments that repeat, and mark their steps as taken."""
    groups = []
    for _ in range(_MOST_GROUPS):
        start, period, count = _longest_repetition(kinds)
        if not count:
            break
        parts = [range(start + i * period, start + (i + 1) * period) for i in range(count)]
        # What one repetition gives to others, all give.
        given = {
            place - part.start
            for part in parts
            for place in part
            if users[order[place][0]] >= part.stop
        }
        found = [_segment(order[part.start : part.stop], flats, sorted(given)) for part in parts]
        alike = [each for each in found if each.wiring == found[0].wiring]
        if len(alike) >= _FEWEST:
            groups.append(alike)
        for place in range(parts[0].start, parts[-1].stop):
            kinds[place] = -1 - place
    return groups


def _runs(order: Sequence[Line], kinds: Sequence[int]) -> Iterator[range]:
    """Yield where steps follow one another that can be fused."""
    start = 0
    for place in range(len(order) + 1):
        is_fusible = place < len(order) and kinds[place] >= 0 and order[place][1].kind in FUSIBLE
        if is_fusible and place - start < LONGEST:
            continue
        if sum(step.kind in WORKING for _, step, *_ in order[start:place]) >= SHORTEST:
            yield range(start, place)
        start = place if is_fusible else place + 1


def _kinds(
    order: Sequence[Line], flats: Mapping[int, Flat], places: Mapping[int, int]
) -> Iterator[int]:
    """Yield a number for each step, equal for steps that differ by their constants alone."""
    known: dict[Any, int] = {}
    for place, (number, _, inputs, _) in enumerate(order):
        flat = flats.get(number)
        takes_vectors = any(each not in places for each in inputs)
        if flat is None or flat.like is not None or takes_vectors:
            yield -1 - place
            continue
        # A second sweep takes what the first one gave in the opposite order.
        sources = tuple(min(place - places[each], LONGEST) for each in inputs)
        yield known.setdefault((sources, _kind(flat)), len(known))


def _kind(flat: Flat) -> Any:
    """Return what flat steps have in common that differ by their constants alone."""
    return flat.run.__code__, flat.strides, tuple(map(_kind_of_constant, _constants(flat)))


def _kind_of_constant(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.stride(), value.dtype
    return value if isinstance(value, int | float | torch.dtype) else id(value)


def _longest_repetition(kinds: Sequence[int]) -> tuple[int, int, int]:
    """Return where the repetition that covers most begins, its period, and how often it repeats."""
    numbers = torch.tensor(kinds)
    best, covered = (0, 1, 0), 0
    for period in range(SHORTEST, min(LONGEST, len(kinds) // _FEWEST) + 1):
        differs = (numbers[period:] != numbers[:-period]).nonzero()[:, 0].tolist()
        before = -1
        for end in [*differs, len(kinds) - period]:
            count = (end - before - 1 + period) // period
            # A shorter period is preferred unless it leaves a part of the steps out.
            if count >= _FEWEST and count * period > 1.1 * covered:
                best, covered = (before + 1, period, count), count * period
            before = end
    return best


def _segment(lines: Sequence[Line], flats: Mapping[int, Flat], given: Sequence[int]) -> Segment:
    numbers = [number for number, *_ in lines]
    steps = [(number, inputs, flats[number]) for number, _, inputs, _ in lines]
    own = set(numbers)
    taken: dict[int, tuple[int, ...]] = {}
    for _, inputs, flat in steps:
        for each, strides in zip(inputs, flat.strides, strict=True):
            if each not in own:
                taken.setdefault(each, strides)
    names = {number: -1 - place for place, number in enumerate(taken)}
    names |= {number: place for place, number in enumerate(numbers)}
    wiring = tuple(tuple(names[each] for each in inputs) for _, inputs, _ in steps)
    outputs = tuple(numbers[place] for place in given)
    # The compiler would differentiate constants that have an autograd history.
    tensors = tuple(
        each.detach()
        for _, _, flat in steps
        for each in _constants(flat)
        if isinstance(each, Tensor)
    )

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        results = dict(zip(taken, values, strict=False))
        constants = iter(values[len(taken) :])
        for number, inputs, flat in steps:
            function = _with_constants(flat.run, constants)
            results[number] = function(*[results[each] for each in inputs])
        return tuple(results[number] for number in outputs)

    return Segment(numbers[0], frozenset(numbers), taken, outputs, wiring, tensors, run)


def _constants(flat: Flat) -> list[Any]:
    """Return what the names in the text of a flat step stand for."""
    return [cell.cell_contents for cell in getattr(flat.run, "__closure__", None) or ()]


def _with_constants(run: Any, constants: Iterator[Tensor]) -> Callable[..., Any]:
    """Return a function with other tensors in the place of those that it holds."""
    cells = tuple(
        CellType(next(constants)) if isinstance(cell.cell_contents, Tensor) else cell
        for cell in run.__closure__ or ()
    )
    return FunctionType(run.__code__, run.__globals__, closure=cells)
