"""Hydra's and OmegaConf's errors in the words of this program."""

from __future__ import annotations

import re

from omegaconf import Container
from omegaconf.errors import OmegaConfBaseException

from jobs.errors import unknown


def explain(error: BaseException) -> str:
    """One message that names the option, the value and what would be valid.

    Args:
        error: What Hydra raised while it composed the configuration.
    """
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        text = str(cause).splitlines()[0]
        if re.match(r"Key '.*' (not in|is not in)", text):
            return str(unknown("option", cause.full_key, _siblings(cause)))
        return f"{cause.full_key}: {text}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    missing_choice = re.search(r"Could not find '(\w+)/(.*)'", lines[0])
    if missing_choice and "Available options" in str(error):
        group, value = missing_choice.groups()
        first = next(i for i, line in enumerate(lines) if line.startswith("Available options"))
        last = next(i for i, line in enumerate(lines) if line.startswith("Config search path"))
        return str(unknown(group, value, lines[first + 1 : last]))
    return lines[0]


def _siblings(error: OmegaConfBaseException) -> list[str]:
    """The keys that stand where an unknown one was looked for, with their path."""
    parent = error.parent_node
    if not isinstance(parent, Container):
        return []
    prefix = str(error.full_key).rpartition(".")[0]
    names = [str(key) for key in getattr(parent, "keys", list)()]
    return [f"{prefix}.{name}" if prefix else name for name in names if name != "hydra"]
