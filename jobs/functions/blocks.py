"""The diagonal blocks of a second derivative, each as the derivative of a smaller function.

The block of some tensors of the point is the Hessian, or the curvature matrix, of the function of
these tensors, the others being constants. The sum of these functions, each with variables of its
own, has the matrix whose diagonal blocks they are and whose other entries are zero: its products
and differences verify all blocks together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from jobs.configuration.schema import StructureConfig
from jobs.errors import ConfigurationError, did_you_mean
from jobs.functions.batch_sum import BatchSum
from jobs.functions.curvature import Curvature
from jobs.functions.loading import LoadedFunction
from jobs.functions.variables import Variables

_Function = Callable[..., Any]


@dataclass(frozen=True)
class DiagonalBlock:
    """A diagonal block.

    Attributes:
        names: The names of its tensors.
        first: The number of the first of them, in the order of the blocks.
        width: How many elements they have.
    """

    names: tuple[str, ...]
    first: int
    width: int


class BlocksFunction(BatchSum):
    """The sum of a function of the tensors of each block, of all tensors in the order of blocks.

    Attributes:
        blocks: The blocks.
        function: The function of the whole point.
        whole_point: The tensors in the order of the function.
        point: The tensors in the order of the blocks.
    """

    def __init__(
        self, function: _Function, point: dict[str, Tensor], groups: Sequence[tuple[str, ...]]
    ) -> None:
        """Keep the function; nothing is evaluated yet.

        Args:
            function: The function of the whole point, or a sum of such.
            point: Its tensors, by name.
            groups: The names of the tensors of each block.
        """
        super().__init__(lambda: iter(()))
        self.function, self.whole_point = function, point
        names = [name for group in groups for name in group]
        self.point = {name: point[name] for name in names}
        self._places = [names.index(name) for name in point]
        self.blocks: list[DiagonalBlock] = []
        for group in groups:
            first = sum(len(block.names) for block in self.blocks)
            width = sum(point[name].numel() for name in group)
            self.blocks.append(DiagonalBlock(group, first, width))

    @property
    def widths(self) -> list[int]:
        """How many columns each block has."""
        return [block.width for block in self.blocks]

    @property
    def is_of_curvature(self) -> bool:
        """Whether the blocks are those of a curvature matrix."""
        return isinstance(self.function, Curvature)

    def term(self, number: int, last: int | None = None) -> tuple[_Function, tuple[Tensor, ...]]:
        """Return the function of the tensors of a block, or of several, and these tensors.

        Args:
            number: The number of the block.
            last: That of the last block; None for one block.
        """
        blocks = self.blocks[number : (number if last is None else last) + 1]
        names = tuple(name for block in blocks for name in block.names)
        width = sum(block.width for block in blocks)
        block = DiagonalBlock(names, blocks[0].first, width)
        given = tuple(self.point[name] for name in block.names)
        return _of_some(self.function, self._fill(block, 0), given), given

    def terms(self) -> Iterator[_Function]:
        """Yield the functions of the blocks, as functions of all tensors."""
        for block in self.blocks:
            fill = self._fill(block, block.first)
            yield _of_some(self.function, fill, tuple(self.point.values()))

    def seed_of(self, seed: int, number: int) -> int:
        """Return the seed of a term: all are the same function, with the same random numbers."""
        return seed

    def sample(self) -> _Function:
        """Return the function of all tensors."""

        def fill(*given: Tensor) -> list[Tensor]:
            return [given[place] for place in self._places]

        whole = _of_some(self.function, fill, tuple(self.point.values()))
        return whole.sample() if isinstance(whole, BatchSum) else whole

    def total(self, value: Tensor) -> Tensor:
        """Return the value of the sum, from that of the function."""
        return len(self.blocks) * value

    def _fill(self, block: DiagonalBlock, first: int) -> Callable[..., list[Tensor]]:
        """Return what puts the tensors of a block into the whole point, among constants.

        Args:
            block: The block.
            first: Where its tensors are among those that are given.
        """
        constants = [tensor.detach() for tensor in self.point.values()]
        held = range(block.first, block.first + len(block.names))

        def fill(*given: Tensor) -> list[Tensor]:
            # The verification evaluates in double precision as well. Copies, because the function
            # may work in place on its arguments.
            tensors = [
                given[number - block.first + first]
                if number in held
                else constant.to(given[first].dtype, copy=True)
                for number, constant in enumerate(constants)
            ]
            return [tensors[place] for place in self._places]

        return fill


def with_blocks(
    variables: Variables, groups: Sequence[tuple[str, ...]]
) -> tuple[LoadedFunction, dict[str, Tensor]]:
    """Return a function with the diagonal blocks of the matrix of another one, and its point.

    Args:
        variables: The function of the whole point.
        groups: The names of the tensors of each block.
    """
    function = BlocksFunction(variables.function.function, variables.point, groups)
    arguments = tuple(function.point)
    return replace(variables.function, function=function, arguments=arguments), function.point


def groups_of(structure: StructureConfig, point: dict[str, Tensor]) -> list[tuple[str, ...]]:
    """Return the names of the tensors of each diagonal block, in the order of the point.

    Args:
        structure: The options; without groups each tensor has a block of its own.
        point: The tensors of the point, by name.

    Raises:
        ConfigurationError: A pattern matches no tensor, a tensor is in no group or in several.
    """
    if structure.groups is None:
        return [(name,) for name in point]
    named: dict[str, int] = {}
    for number, patterns in enumerate(structure.groups):
        for pattern in patterns:
            found = [name for name in point if fnmatchcase(name, pattern)]
            if not found:
                raise ConfigurationError(
                    f"structure.groups={pattern}: no tensor of the point has such a name; there "
                    f"are {_listed(list(point))}{did_you_mean(pattern, list(point))}"
                )
            for name in found:
                if named.setdefault(name, number) != number:
                    raise ConfigurationError(
                        f"structure.groups: {name} is in the groups "
                        f"{_listed(structure.groups[named[name]])} and {_listed(patterns)}; each "
                        "tensor has one diagonal block"
                    )
    if missing := [name for name in point if name not in named]:
        raise ConfigurationError(
            f"structure.groups: {_listed(missing)} is in no group; each tensor of the point needs "
            "one, or a wrt.pattern that leaves it out; the pattern * is all of them"
        )
    # Those of a group, in the order of the point; the groups by their first tensors.
    return [
        tuple(name for name in point if named[name] == number)
        for number in dict.fromkeys(named[name] for name in point)
    ]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if names[8:] else ""
    return (", ".join(names[:8]) + more) or "none"


def _of_some(
    function: _Function, fill: Callable[..., list[Tensor]], base: tuple[Tensor, ...]
) -> _Function:
    """Return a function of some tensors, which are put among the others; of a sum, such a sum."""
    if isinstance(function, Curvature):
        return function.of_some(fill, base)

    def changed(term: _Function) -> _Function:
        return lambda *given: term(*fill(*given))

    return function.mapped(changed) if isinstance(function, BatchSum) else changed(function)
