"""What a job casts, moves and freezes of the user's arrays and modules, for the record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.sources.source_array import SourceArray, name_of

_NAMES = 3


@dataclass(frozen=True)
class Conversion:
    """What is done to one tensor, or to several alike.

    Attributes:
        kind: ``cast``, ``moved`` or ``frozen``.
        what: What the tensors are, such as ``inputs``.
        names: Their names.
        how: What becomes what, or why.
        changed: How many values change; 0 where the conversion loses nothing.
    """

    kind: str
    what: str
    names: tuple[str, ...]
    how: str
    changed: int = 0

    def __str__(self) -> str:
        """Say it in one line: names where there are few, and counts."""
        listed = ", ".join(self.names[:_NAMES])
        more = len(self.names) - _NAMES
        names = f"{listed} and {more} more" if more > 0 else listed
        entries = "1 entry" if self.changed == 1 else f"{self.changed} entries"
        lost = f" (not exact in {entries})" if self.changed else ""
        return f"{self.what} {names}: {self.how}{lost}"


def conversions_of_arrays(
    what: str, arrays: Iterable[tuple[str, SourceArray, torch.dtype]], device: torch.device
) -> list[Conversion]:
    """Return what becomes of arrays.

    Args:
        what: What they are.
        arrays: Name, array and the dtype that it is converted to.
        device: Where they are put.
    """
    found = []
    for name, array, dtype in arrays:
        before = array.dtype_name
        if before != name_of(dtype):
            changed = sum(_changed(piece, dtype) for piece in array.pieces())
            found.append(
                Conversion("cast", what, (name,), f"{before} -> {name_of(dtype)}", changed)
            )
        place = array.values.device if isinstance(array.values, Tensor) else torch.device("cpu")
        found += _moves(what, name, place, device)
    return alike(found)


def conversions_of_tensors(
    what: str, tensors: Iterable[tuple[str, Tensor, torch.dtype, torch.device]]
) -> list[Conversion]:
    """Return what becomes of tensors.

    Args:
        what: What the tensors are.
        tensors: Their names and values, each with the dtype and the device that it gets.
    """
    found = []
    for name, tensor, dtype, device in tensors:
        if tensor.dtype != dtype:
            how = f"{name_of(tensor.dtype)} -> {name_of(dtype)}"
            found.append(Conversion("cast", what, (name,), how, _changed(tensor, dtype)))
        found += _moves(what, name, tensor.device, device)
    return alike(found)


def alike(conversions: Iterable[Conversion]) -> list[Conversion]:
    """Join the conversions that differ in their names alone."""
    joined: dict[tuple[str, str, str, bool], Conversion] = {}
    for each in conversions:
        key = (each.kind, each.what, each.how, each.changed > 0)
        before = joined.get(key)
        names = tuple(dict.fromkeys((*before.names, *each.names))) if before else each.names
        changed = each.changed + (before.changed if before else 0)
        joined[key] = Conversion(each.kind, each.what, names, each.how, changed)
    return list(joined.values())


def conversion_figures(conversions: Sequence[Conversion]) -> dict[str, list[str]]:
    """Return what the result file keeps: for each kind one line for what is done alike."""
    kinds = dict.fromkeys(each.kind for each in conversions)
    return {kind: [str(each) for each in conversions if each.kind == kind] for kind in kinds}


def lossy(conversions: Iterable[Conversion]) -> list[str]:
    """Return the conversions that change values, each as a sentence for the plan."""
    return [f"converted: {each}" for each in conversions if each.changed]


def _changed(tensor: Tensor, dtype: torch.dtype) -> int:
    """Return how many values another dtype does not hold exactly."""
    own = tensor.dtype
    is_inexact = own.is_floating_point or own.is_complex
    if own == torch.bool or (is_inexact and torch.promote_types(own, dtype) == dtype):
        return 0
    values = tensor.detach()
    there = values.to(dtype)
    if is_inexact:
        return int(((there.to(own) != values) & ~torch.isnan(values)).sum())
    # What is rounded up to 2^63 is no integer of torch: it would return as the smallest one.
    back = there.real if dtype.is_complex else there
    return int(((back.double() >= 2.0**63) | (back.to(torch.int64) != values)).sum())


def _moves(what: str, name: str, place: torch.device, device: torch.device) -> list[Conversion]:
    if place.type == device.type:
        return []
    return [Conversion("moved", what, (name,), f"{place} -> {device}")]
