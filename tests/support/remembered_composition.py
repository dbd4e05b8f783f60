"""Let Hydra compose the options of each choice of groups once in a process.

Hydra reads and merges two dozen files for every command, which takes longer than most jobs of the
tests. What it makes of the files depends on the chosen groups alone; single values are set
afterwards, by Hydra itself, in a copy. Searches that reach other directories are not remembered,
nor is what fails.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override

from jobs.configuration.registry import register
from jobs.paths import config_directory

_LIST, _COMPOSITION = "create_defaults_list", "_compose_config_from_defaults_list"
_lists: dict[Any, Any] = {}
_compositions: dict[int, Any] = {}


@contextmanager
def remembered_compositions() -> Iterator[None]:
    """Remember compositions while the body runs, and those of before."""
    plain_list = getattr(config_loader_impl, _LIST)
    plain_composition = getattr(ConfigLoaderImpl, _COMPOSITION)

    def defaults_list(
        repo: Any, config_name: str | None, overrides_list: list[Override], **options: Any
    ) -> Any:
        if any(each.scheme() == "file" and not _is_ours(each.path) for each in repo.get_sources()):
            return plain_list(repo, config_name, overrides_list, **options)
        values = [each for each in overrides_list if _is_value(each, repo)]
        groups = [each for each in overrides_list if each not in values]
        sources = tuple((each.scheme(), each.path) for each in repo.get_sources())
        lines = tuple(each.input_line for each in groups)
        key = (sources, config_name, lines, *sorted(options.items()))
        if key not in _lists:
            _lists[key] = plain_list(repo, config_name, groups, **options)
        found = copy.copy(_lists[key])
        found.config_overrides = values
        return found

    def composition(loader: Any, defaults: list[ResultDefault], repo: Any) -> Any:
        if not any(each.defaults is defaults for each in _lists.values()):
            return plain_composition(loader, defaults, repo)
        if id(defaults) not in _compositions:
            _compositions[id(defaults)] = plain_composition(loader, defaults, repo)
        return copy.deepcopy(_compositions[id(defaults)])

    def repository(caching: Any, delegate: Any) -> None:
        # Hydra copies all schemas; other sources take the place of these, and nothing changes them.
        caching.delegate, caching.cache = copy.copy(delegate), {}

    with (
        patch.object(CachingConfigRepository, "__init__", repository),
        patch.object(config_loader_impl, _LIST, defaults_list),
        patch.object(ConfigLoaderImpl, _COMPOSITION, composition),
    ):
        yield


def compose_ahead(*choices: list[str]) -> None:
    """Compose choices of groups that processes which fork from this one will want."""
    register()
    for each in choices:
        with initialize_config_dir(version_base="1.3", config_dir=str(config_directory())):
            compose("config", each)


def _is_ours(path: str) -> bool:
    return path == str(config_directory())


def _is_value(override: Override, repo: Any) -> bool:
    """Return whether an override sets a value, as Hydra decides it."""
    return not override.is_sweep_override() and (
        isinstance(override.value(), dict) or not repo.group_exists(override.key_or_group)
    )
