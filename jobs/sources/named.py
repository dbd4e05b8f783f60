"""Read each tensor from its own source: ``inputs=named`` and ``vectors=named``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jobs.configuration.schema import NamedSource, SourceConfig
from jobs.errors import ConfigurationError
from jobs.sources.source_array import SourceArray


def read_named(
    option: str,
    config: NamedSource,
    read: Callable[[str, str, SourceConfig], Mapping[str, SourceArray]],
) -> dict[str, SourceArray]:
    """Read one array for each tensor.

    Args:
        option: The option that holds the source, ``inputs`` or ``vectors``, for messages.
        config: The source.
        read: Reads one tensor, given the option for messages, the tensor's name and its source.

    Returns:
        Tensor name to array.

    Raises:
        ConfigurationError: There are no sources, or one holds several arrays.
    """
    if not config.tensors:
        raise ConfigurationError(
            f"{option}=named: a source is needed for each tensor, such as {option}.tensors.x=x.npy"
        )
    arrays = {}
    for name, source in config.tensors.items():
        place = f"{option}.tensors.{name}"
        found = read(place, name, source)
        if len(found) != 1:
            raise ConfigurationError(
                f"{place}: the source holds {', '.join(found)}; choose one of them"
            )
        (arrays[name],) = found.values()
    return arrays
