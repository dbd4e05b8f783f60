"""Runs of flat steps, each as one function.

What a flat step makes of values with given strides has given strides too. So it is enough to look
at the values that enter a run, and what remains of its steps is the calls of their operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from autodiff_core._programs.flat import Flat
from autodiff_core._programs.segments import Line, Segment

_SHORTEST, _LONGEST = 2, 32
"""The smallest and the largest number of steps in a run: where the first values of a chunk are not
dense, the runs after them fit again."""


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
            is_dense = False
        if is_dense and place - start < _LONGEST:
            continue
        if place - start >= _SHORTEST:
            yield range(start, place)
        start = place if is_dense else place + 1


def _run(lines: Sequence[Line], flats: Mapping[int, Flat | None], given: Sequence[int]) -> Segment:
    own = {number for number, *_ in lines}
    taken: dict[int, tuple[int, ...]] = {}
    functions: list[Callable[..., Any]] = []
    body: list[str] = []
    for number, _, inputs, finished in lines:
        flat = flats[number]
        assert flat is not None
        for each, strides in zip(inputs, flat.strides, strict=True):
            if each not in own:
                taken.setdefault(each, strides)
        arguments = ", ".join(map(_name, inputs))
        body.append(f"{_name(number)} = f{len(functions)}({arguments})")
        functions.append(flat.run)
        if finished:
            body.append(f"del {', '.join(map(_name, finished))}")
    body.append(f"return ({''.join(f'{_name(each)}, ' for each in given)})")
    text = (
        f"def make({', '.join(f'f{place}' for place in range(len(functions)))}):\n"
        f"  def run({', '.join(map(_name, taken))}):\n"
        + "".join(f"    {line}\n" for line in body)
        + "  return run\n"
    )
    names: dict[str, Any] = {}
    exec(compile(text, "<run of flat steps>", "exec"), names)
    run = names["make"](*functions)
    return Segment(lines[0][0], frozenset(own), taken, tuple(given), (), (), run)


def _name(number: int) -> str:
    return f"t{number}" if number >= 0 else f"s{-number}"
