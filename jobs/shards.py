"""The division of one matrix among several tasks: the option `shard=3/8`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from jobs.errors import ConfigurationError, JobError

if TYPE_CHECKING:
    from outputs import Shard

_LARGEST_COMMON_CHUNK = 64
_UNITS_PER_SHARD = 8


def check_shard(shard: str | None, shards: int | None) -> tuple[int, int] | None:
    """Parse the options `shard` and `shards`.

    Args:
        shard: Index and count, ``3/8``; or the index alone, with the count in `shards`.
        shards: The count, or None.

    Returns:
        Index and count, or None for the whole matrix.

    Raises:
        ConfigurationError: The options are not valid.
    """
    if shards is not None and shards < 1:
        raise ConfigurationError(f"shards={shards}: valid are integers from 1 on")
    if shard is None:
        if shards is not None:
            raise ConfigurationError(
                f"shards={shards}: the index of the shard is missing; valid are shard=0 to "
                f"shard={shards - 1}, and with --multirun 'shard=range({shards})'"
            )
        return None
    found = re.fullmatch(r"(\d+)(?:/(\d+))?", shard)
    if found is None or (found[2] is None and shards is None):
        raise ConfigurationError(
            f"shard={shard}: valid is index/count with the index from 0, such as shard=3/8, "
            "or shard=3 shards=8"
        )
    index, count = int(found[1]), int(found[2] or shards or 0)
    if shards not in (None, count):
        raise ConfigurationError(f"shard={shard} shards={shards}: two different counts")
    if not 0 <= index < count:
        valid = f"shard=0/{count} to shard={count - 1}/{count}" if count else "a count from 1 on"
        raise ConfigurationError(f"shard={shard}: valid is {valid}")
    return index, count


def share(index: int, count: int, lines: int, axis: str) -> Shard:
    """Return the lines of one shard; all shards have nearly the same number of lines.

    Shards begin and end at multiples of a power of two, up to 64, that is small compared with a
    shard. So chunks of such a size are the same whether or not the matrix is divided, and no
    boundary depends on the chunk size, which every task may choose for itself.

    Args:
        index: The index of the shard, from 0.
        count: The number of shards.
        lines: The number of rows or columns of the whole matrix.
        axis: ``rows`` or ``columns``.

    Raises:
        JobError: There are fewer lines than shards.
    """
    # Options are checked before anything large is imported.
    from outputs import Shard

    if count > lines:
        raise JobError(
            f"shard={index}/{count}: the matrix has {lines} {axis}; valid are up to {lines} shards"
        )
    unit = 1
    while unit < _LARGEST_COMMON_CHUNK and 2 * unit * _UNITS_PER_SHARD * count <= lines:
        unit *= 2
    units = -(-lines // unit)
    start, stop = (min(lines, units * edge // count * unit) for edge in (index, index + 1))
    return Shard(index, count, start, stop)
