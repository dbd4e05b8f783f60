"""Runs of flat steps, each as one function.

What a flat step makes of values with given strides has given strides too. So it is enough to look
at the values that enter a run, and what remains of its steps is the calls of their operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from autodiff_core._programs.flat import Flat, made
from autodiff_core._programs.segments import Line, Segment

_SHORTEST, _LONGEST = 2, 32
"""The smallest and the largest number of steps in a run: where the first values of a chunk are not
dense, the runs after them fit again.

A run of half as many ends before a step like its first. Where steps repeat, as those of an
integrator do, the runs soon repeat as well, and share a text that is compiled once.
"""


def runs(
    order: Sequence[Line], flats: Mapping[int, Flat | None], outputs: Sequence[int | None]
) -> dict[int, Segment]:
    """Return runs of flat steps with dense results, by the numbers of their first steps.

    Args:
        order: The steps.
        flats: The flat forms of the steps, where they have one.
        outputs: The numbers of the results that are the program's images.
    """
    users: dict[int, int] = {}
    for place, (_, _, inputs, _) in enumerate(order):
        users.update(dict.fromkeys(inputs, place))
    users.update({output: len(order) for output in outputs if output is not None})
    found = {}
    for part in _dense_parts(order, flats):
        lines = order[part.start : part.stop]
        given = [number for number, *_ in lines if users.get(number, -1) >= part.stop]
        found[lines[0][0]] = _run(lines, flats, given)
    return found


def _dense_parts(order: Sequence[Line], flats: Mapping[int, Flat | None]) -> Iterator[range]:
    start = 0
    for place in range(len(order) + 1):
        if place < len(order):
            number, step, *_ = order[place]
            flat = flats.get(number)
            is_dense = flat is not None and flat.like is None and step.kind != "general"
        else:
            flat, is_dense = None, False
        length = place - start
        if is_dense and flat is not None:
            code = flat.run.__code__
            if not length:
                first = code
            if length < _LONGEST and (length < _LONGEST // 2 or code is not first):
                continue
            first = code
        if length >= _SHORTEST:
            yield range(start, place)
        start = place if is_dense else place + 1


def _run(lines: Sequence[Line], flats: Mapping[int, Flat | None], given: Sequence[int]) -> Segment:
    own = {number for number, *_ in lines}
    taken: dict[int, tuple[int, ...]] = {}
    functions: list[Callable[..., Any]] = []
    body: list[str] = []
    names: dict[int, str] = {}
    for number, _, inputs, finished in lines:
        flat = flats[number]
        assert flat is not None
        for each, strides in zip(inputs, flat.strides, strict=True):
            if each not in own:
                taken.setdefault(each, strides)
        arguments = ", ".join([_named(names, each) for each in inputs])
        body.append(f"{_named(names, number)} = f{len(functions)}({arguments})")
        functions.append(flat.run)
        if finished:
            body.append(f"del {', '.join([names[each] for each in finished])}")
    body.append(f"return ({''.join([f'{names[each]}, ' for each in given])})")
    parameters = ", ".join([names[each] for each in taken])
    lines_of_text = "".join([f"    {line}\n" for line in body])
    makers = ", ".join([f"f{place}" for place in range(len(functions))])
    text = f"def make({makers}):\n  def run({parameters}):\n{lines_of_text}  return run\n"
    return Segment(lines[0][0], frozenset(own), taken, tuple(given), (), (), made(text)(*functions))


def _named(names: dict[int, str], number: int) -> str:
    """Return the name of a value, by the order in which a run meets them."""
    return names.setdefault(number, f"t{len(names)}")
