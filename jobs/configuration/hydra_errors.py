"""Turn errors of Hydra and OmegaConf into messages in the terms of this program."""

from __future__ import annotations

import dataclasses
import re
import traceback
from collections.abc import Iterable

from hydra.errors import HydraException, OverrideParseException
from omegaconf import Container
from omegaconf.errors import OmegaConfBaseException

from jobs.configuration.schema import JobConfig
from jobs.errors import ConfigurationError, unknown, unknown_option

HYDRA_ERRORS = (HydraException, OmegaConfBaseException)

# Messages of OmegaConf about a value of the wrong type, and what would be valid.
_VALID = {
    r"Value '(.*)' of type '\w+' could not be converted to Integer": "valid is an integer",
    r"Value '(.*)' of type '\w+' could not be converted to Float": "valid is a number",
    r"Value '(.*)' is not a valid bool": "valid are true and false",
    r"Value '(.*)' of type '\w+' is incompatible with .*int, str": "valid are an integer and auto",
    r"Value '(.*)' \(\w+\) is incompatible with type hint 'int'": "valid is an integer",
}


def explain(error: BaseException) -> str:
    """Return one message that names the option, the value and what would be valid.

    Args:
        error: The exception that Hydra or OmegaConf raised while composing the configuration.
    """
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return _about_key(cause)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    missing_choice = re.search(r"Could not find '(.+)/([^/]*)'", lines[0])
    if missing_choice and "Available options" in str(error):
        group, value = missing_choice.groups()
        first = next(i for i, line in enumerate(lines) if line.startswith("Available options"))
        last = next(i for i, line in enumerate(lines) if line.startswith("Config search path"))
        return str(unknown(group, value, lines[first + 1 : last]))
    deleted = re.match(r"Could not (?:delete|override)\D*'(.*?)'", lines[0])
    if deleted:
        return str(
            unknown_option(deleted[1], [each.name for each in dataclasses.fields(JobConfig)])
        )
    if "is not a subclass of" in str(error):
        member = re.match(r"In '(?:schema/)?(\w+)/(\w+)'", lines[0])
        return f"{member[1] if member else 'a group'}: one choice is needed, and not several"
    several = re.match(r"Ambiguous value for argument '(.*)'", lines[0])
    if several:
        return (
            f"{several[1]}: several values make several jobs, which --multirun runs; a list is "
            "written in brackets, and a value that holds a comma in quotes within quotes"
        )
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override}: valid is option=value; a value with one of =,:()[]{{}}'\" is "
            "written in quotes within quotes, such as \"inputs.path='a=b.npy'\""
        )
    return lines[0]


def check_arguments(arguments: Iterable[str]) -> None:
    """Refuse arguments that are no options, which Hydra would not report by name.

    Args:
        arguments: The arguments of the command line.

    Raises:
        ConfigurationError: An argument has no name, such as ``=3``.
    """
    for argument in arguments:
        if re.match(r"[+~]*([=@]|$)", argument):
            raise ConfigurationError(f"{argument or 'an empty argument'}: valid is option=value")


def refused_option(error: BaseException) -> str:
    """Return one message about the option that Hydra was applying when it failed.

    For an option below another one that is null, Hydra raises an assertion without any text.

    Args:
        error: Any exception.

    Returns:
        The message; empty if Hydra was not applying an option.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "_apply_overrides_to_config":
            given = getattr(frame.f_locals.get("override"), "input_line", "an option")
            return f"{given}: there is nothing of that name within a value that is null"
    return ""


def _about_key(error: OmegaConfBaseException) -> str:
    text = str(error).splitlines()[0]
    if re.match(r"Key '.*' (not in|is not in)", text):
        return str(unknown_option(str(error.full_key), _siblings(error)))
    if "is not Optional" in text:
        return f"{error.full_key}=null: a value is needed"
    for pattern, valid in _VALID.items():
        found = re.match(pattern, text)
        if found:
            return f"{error.full_key}={found[1]}: {valid}"
    if re.match(r"Cannot convert '(dict|list|DictConfig|ListConfig)' to string", text):
        return f"{error.full_key}: valid is a single value"
    if re.match(r"Cannot assign \w+ to Dict", text) or "is not a DictConfig" in text:
        return f"{error.full_key}: valid is a mapping, in braces"
    if "is not a ListConfig" in text:
        return f"{error.full_key}: valid is a list, in brackets"
    return f"{error.full_key}: {text}"


def _siblings(error: OmegaConfBaseException) -> list[str]:
    """Return the keys, with their paths, in the mapping where a key was not found."""
    parent = error.parent_node
    if not isinstance(parent, Container):
        return []
    prefix = str(error.full_key).rpartition(".")[0]
    names = [str(key) for key in getattr(parent, "keys", list)()]
    return [f"{prefix}.{name}" if prefix else name for name in names if name != "hydra"]
