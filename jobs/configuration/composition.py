"""Compose options that come as Python values, from the same YAML files and schemas as Hydra does.

Hydra is not asked to: its state belongs to the whole process, and a caller may use Hydra as well.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import PurePath
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jobs.configuration.hydra_errors import explain
from jobs.configuration.registry import GROUPS
from jobs.configuration.schema import JobConfig
from jobs.errors import ConfigurationError, unknown
from jobs.paths import config_directory

# The option by which a member of each group names itself.
MEMBER_KEYS = {
    "function": "name",
    "wrt": "of",
    "inputs": "source",
    "points": "by",
    "structure": "kind",
    "loss": "kind",
    "vectors": "source",
    "verify": "mode",
}
_NESTED = (*GROUPS, "output")


def composed(options: Mapping[str, Any]) -> DictConfig:
    """Return the configuration with some options set, and the defaults of all others.

    Args:
        options: Option to value. Of a group the value is the name of a member, or a mapping of the
            member's options, which may name the member by the option with its name
            (`MEMBER_KEYS`); otherwise it is the default one.

    Raises:
        ConfigurationError: There is no such option or member, or a value has another type.
    """
    values = {str(name): _plain(str(name), value) for name, value in options.items()}
    members, given = dict(_defaults()), {}
    for name, value in values.items():
        if name not in GROUPS:
            given[name] = value
        elif isinstance(value, dict):
            key = MEMBER_KEYS[name]
            members[name] = value.get(key, members[name])
            given[name] = {k: v for k, v in value.items() if k != key}
        else:
            members[name] = value
    for group, member in members.items():
        # A member may be of any type, hashable or not.
        if member not in members_of(group):
            raise unknown(group, member, members_of(group))
    config: DictConfig = pickle.loads(_with_defaults(tuple(members.items())))
    for path, value in _paths(given):
        try:
            OmegaConf.update(config, path, value, merge=True)
        except OmegaConfBaseException as error:
            raise ConfigurationError(explain(error)) from error
    return config


def _paths(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the options with their paths, those of a group one by one."""
    for name, value in given.items():
        if name not in _NESTED:
            yield name, value
        elif isinstance(value, dict):
            yield from ((f"{name}.{key}", each) for key, each in value.items())
        else:
            raise ConfigurationError(f"{name}={value}: valid is a dictionary of its options")


@cache
def _with_defaults(members: tuple[tuple[str, str], ...]) -> bytes:
    """Return the configuration of some members, with the defaults of all options, as a pickle.

    Loading it takes a sixth of the time of a deep copy.
    """
    base = OmegaConf.structured(JobConfig)
    OmegaConf.set_struct(base, True)
    chosen = {group: _member(group, member) for group, member in members}
    config = OmegaConf.merge(base, _yaml("config"), chosen)
    return pickle.dumps(config)


def _member(group: str, member: str) -> DictConfig:
    """Return a member of a group with its defaults."""
    node = OmegaConf.structured(GROUPS[group][member])
    for key in node:
        # What is open to any key; accessing a missing value would raise.
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(node[key]):
            OmegaConf.set_struct(node[key], False)
    merged = OmegaConf.merge(node, _yaml(f"{group}/{member}"))
    assert isinstance(merged, DictConfig)
    return merged


@cache
def members_of(group: str) -> list[str]:
    """Return the names of the members of a group that an option may choose."""
    return sorted(file.stem for file in (config_directory() / group).glob("*.yaml"))


def _yaml(name: str) -> dict[str, Any]:
    """Return the values of a file of options, without what only Hydra needs."""
    found: Any = OmegaConf.to_container(OmegaConf.load(config_directory() / f"{name}.yaml"))
    return {key: value for key, value in found.items() if key not in ("defaults", "hydra")}


def launcher_settings(cluster: str) -> dict[str, Any]:
    """Return the default settings of the tasks of a cluster, those of its file of options.

    The folder of a sweep is left out.
    """
    found: Any = OmegaConf.load(config_directory() / "cluster" / f"{cluster}.yaml")
    settings: Any = OmegaConf.to_container(found.hydra.launcher)
    return {name: value for name, value in settings.items() if name != "submitit_folder"}


@cache
def _defaults() -> dict[str, str]:
    """Return the default member of each group."""
    listed = OmegaConf.load(config_directory() / "config.yaml").defaults
    pairs = [each for each in listed if OmegaConf.is_dict(each)]
    return {group: pair[group] for pair in pairs for group in pair if group in GROUPS}


def _plain(option: str, value: Any) -> Any:
    """Return a value of Python's as options have it: without types of libraries.

    Raises:
        ConfigurationError: There is no form of it that an option could have.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(f"{option}.{k}", each) for k, each in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(option, each) for each in value]
    if isinstance(value, PurePath):
        return os.fspath(value)
    kind = type(value)
    if kind.__module__ == "torch" and kind.__name__ in ("dtype", "device"):
        return str(value).removeprefix("torch.")
    if kind.__module__ == "numpy" and not getattr(value, "shape", True):
        return value.item()
    raise ConfigurationError(
        f"{option}: this is of type {kind.__name__}; valid are numbers, texts, and lists and "
        "dictionaries of them"
    )
