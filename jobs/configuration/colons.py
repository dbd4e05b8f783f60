"""Read 1:3 in files of options as the text it is, a range, and not as a number to the base 60.

YAML 1.1 reads it as 63, of which nothing tells afterwards that it was another row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from omegaconf import _utils

_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}


@contextmanager
def colons_in_texts() -> Iterator[None]:
    """Let Hydra read its files so; what a function reads by OmegaConf is left as it is."""
    # Hydra finds its classes when its plugins are first asked for.
    Plugins.instance()
    source: Any = SourcesRegistry.instance().resolve("file")
    load, loader = source.load_config, _utils.get_yaml_loader

    def without_base_60() -> Any:
        made = loader()
        made.yaml_implicit_resolvers = {
            first: [(tag, _without_colon(form) if tag in _NUMBERS else form) for tag, form in forms]
            for first, forms in made.yaml_implicit_resolvers.items()
        }
        return made

    def load_so(self: Any, config_path: str) -> Any:
        _utils.get_yaml_loader = without_base_60
        try:
            return load(self, config_path)
        finally:
            _utils.get_yaml_loader = loader

    source.load_config = load_so
    try:
        yield
    finally:
        source.load_config = load


def _without_colon(form: re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(f"(?!.*:)(?:{form.pattern})", form.flags)
