"""Turn errors of Hydra and OmegaConf into messages in the terms of this program."""

from __future__ import annotations

import dataclasses
import os
import re
import traceback
from collections.abc import Iterable

import yaml
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
    r"Value '?(.*?)'? \(\w+\) is incompatible with type hint 'int'": "valid is an integer",
}


def explain(error: BaseException) -> str:
    """Return one message that names the option, the value and what would be valid.

    Args:
        error: The exception that Hydra or OmegaConf raised while composing the configuration.
    """
    # Hydra's own options refer to one of the user's, who has deleted it.
    lacking = re.match(r"Interpolation key '(\w+)' not found", str(error))
    if lacking:
        return f"{lacking[1]}: a value is needed"
    # Hydra raises some of its errors without naming the cause.
    inner = error.__cause__ or error.__context__
    file = re.match(r"In '(.*)': \w+ raised while composing", str(error))
    if file and "Cannot merge DictConfig with ListConfig" in str(inner):
        return (
            f"{file[1]}.yaml: an option that has parts is a list; valid is, for example, "
            "'rows: {lines: [0, 300]}' in place of 'rows: [0, 300]'"
        )
    known = [each for each in (inner, error) if isinstance(each, OmegaConfBaseException)]
    cause = next((each for each in known if each.full_key), None)
    if cause is not None:
        return (f"{file[1]}.yaml: " if file else "") + _about_key(cause)
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
        group = member[1] if member else "a group"
        return (
            f"{group}: one choice is needed, and not several; a file of options makes it in its "
            "defaults, such as '- override points: leading', and not as a value"
        )
    several = re.match(r"Ambiguous value for argument '(.*)'", lines[0])
    if several:
        return (
            f"{several[1]}: several values make several jobs, which --multirun runs; a list is "
            "written in brackets, and a value that holds a comma in quotes within quotes"
        )
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {_how_to_quote(error.override)}"
    return lines[0]


def _how_to_quote(argument: str) -> str:
    """Return what would be valid in place of an argument that Hydra cannot parse."""
    option, equals, value = argument.partition("=")
    if not equals:
        return "valid is option=value"
    quoted = value.strip("'\"").replace("'", "\\'")
    for_the_shell = re.sub(r"([\\\"$`])", r"\\\1", f"{option}='{quoted}'")
    return (
        "valid is option=value; a value with special characters is written in quotes within "
        "quotes, such as "
        f'"{for_the_shell}"'
    )


def refused_file(error: BaseException) -> str:
    """Return one message about a file of options that Hydra could not read; empty for others.

    Hydra passes on the errors of the parser, of the encoding, and of files that include themselves.
    """
    if not any(
        frame.f_globals.get("__name__", "").startswith("hydra._internal.")
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ):
        return ""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f"{mark.name}, line {mark.line + 1}" if mark else "a file of options"
        return f"{place}: this is not valid YAML: {error.problem or error.context}"
    if isinstance(error, yaml.YAMLError | UnicodeDecodeError):
        return f"--config-name: the file is not text in UTF-8 ({str(error).splitlines()[0]})"
    if isinstance(error, RecursionError):
        return "--config-name: the defaults of the file lead back to the file itself"
    return ""


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


def as_hydra_reads(argument: str) -> str:
    """Replace what Hydra refuses.

    That is ``~`` at the beginning of a value, null for a single point, and a list of lines as the
    value of `rows` and `columns`, whose defaults are mappings.

    A shell replaces ``~`` only after names without dots.
    """
    if argument == "points=null":
        return "points=single"
    argument = re.sub(r"^(rows|columns)=(?=\[)", r"\1.lines=", argument)
    found = re.fullmatch(r"([\w.@/+]+=)(~.*)", argument, re.DOTALL)
    return found[1] + os.path.expanduser(found[2]) if found else argument


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
