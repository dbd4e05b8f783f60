"""Turn the sources of ``inputs=named`` and ``vectors=named`` into typed options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from jobs.configuration.hydra_errors import explain
from jobs.configuration.registry import GROUPS
from jobs.configuration.schema import FileSource, NamedSource, SourceConfig
from jobs.errors import ConfigurationError, unknown, unknown_option
from jobs.paths import config_directory

# The suffix of a file, the source that reads it, and the option that selects arrays in it.
_SUFFIXES = {
    ".npy": ("numpy", None),
    ".npz": ("numpy", "arrays"),
    ".h5": ("hdf5", "datasets"),
    ".hdf5": ("hdf5", "datasets"),
    ".safetensors": ("safetensors", "tensors"),
    ".pt": ("torch", "tensors"),
    ".pth": ("torch", "tensors"),
    ".csv": ("table", "columns"),
    ".parquet": ("table", "columns"),
}


def with_named_sources(group: str, config: SourceConfig) -> None:
    """Turn the entries of a named source into typed options, in place.

    Args:
        group: ``inputs`` or ``vectors``.
        config: The option; a source of any other kind is not changed.

    Raises:
        ConfigurationError: An entry is not a valid source.
    """
    if isinstance(config, NamedSource):
        for name, entry in config.tensors.items():
            config.tensors[name] = typed_source(group, f"{group}.tensors.{name}", entry)


def typed_source(group: str, option: str, entry: Any) -> SourceConfig:
    """Return one source as typed options.

    Args:
        group: ``inputs`` or ``vectors``.
        option: The option that holds it, for messages.
        entry: A path, numbers, or a mapping with the options of the source.

    Raises:
        ConfigurationError: It is not a valid source.
    """
    if isinstance(entry, SourceConfig):
        return entry
    if isinstance(entry, str):
        entry = _of_path(option, entry)
    elif isinstance(entry, int | float | list):
        entry = {"source": "constants", "values": {"value": entry}}
    if not isinstance(entry, Mapping) or "source" not in entry:
        raise ConfigurationError(
            f"{option}={entry}: valid is a path such as x.npy or data.h5:/group/x, a number or a "
            "list of numbers, or a mapping such as {source: random, seed: 1}"
        )
    valid = [name for name in GROUPS[group] if name not in ("default", "named")]
    if entry["source"] not in valid:
        raise unknown(f"{option}.source", entry["source"], valid)
    file = config_directory() / group / f"{entry['source']}.yaml"
    defaults = OmegaConf.to_container(OmegaConf.load(file))
    assert isinstance(defaults, dict)
    defaults.pop("defaults")
    schema = GROUPS[group][entry["source"]]
    for key in entry:
        if key not in defaults:
            raise unknown_option(f"{option}.{key}", [f"{option}.{name}" for name in defaults])
    try:
        typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), defaults, entry))
    except MissingMandatoryValue as error:
        raise ConfigurationError(f"{option}.{error.full_key}: a value is needed") from error
    except OmegaConfBaseException as error:
        raise ConfigurationError(f"{option}.{explain(error)}") from error
    assert isinstance(typed, SourceConfig)
    if isinstance(typed, FileSource):
        typed.path = os.path.expanduser(typed.path)
    return typed


def _of_path(option: str, text: str) -> dict[str, Any]:
    """Return the options that ``FILE`` or ``FILE:NAME`` stands for."""
    path, colon, name = text.rpartition(":")
    if not colon or Path(path).suffix.lower() not in _SUFFIXES:
        path, name = text, ""
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise ConfigurationError(
            f"{option}={text}: valid are files {', '.join(_SUFFIXES)}, followed by :NAME to "
            "select an array in the file"
        )
    source, key = _SUFFIXES[suffix]
    if key is None or not name:
        if source == "hdf5":
            raise ConfigurationError(f"{option}={text}: a dataset is needed, such as {path}:/x")
        return {"source": source, "path": path}
    return {"source": source, "path": path, key: [name]}
