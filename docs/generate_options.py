"""Write docs/options.md: every option, its type, default and meaning, from schema and YAML files.

python docs/generate_options.py          writes the page
python docs/generate_options.py --check  ends with 1 where the page is not up to date
"""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from jobs.configuration.composition import MEMBER_KEYS
from jobs.configuration.registry import GROUPS
from jobs.configuration.schema import JobConfig, OutputConfig
from jobs.paths import config_directory

PAGE = Path(__file__).parent / "options.md"
HEAD = """# Options

Set each option as `option=value` on the command line of `python -m jobs.run`; the defaults are in
the YAML files of `conf/`. Choose a member of a group by its name (`function=mlp`), and set the
options of the member as `group.option=value`. `python -m jobs.run --help` is a short form of this
page.

This page is generated from the schema by `docs/generate_options.py`.
"""


def main() -> None:
    """Write the page, or check it."""
    page = text()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page)
    elif not PAGE.exists() or PAGE.read_text() != page:
        sys.exit("docs/options.md is not up to date: python docs/generate_options.py")


def text() -> str:
    """Return the page."""
    conf = config_directory()
    config = conf / "config.yaml"
    options = [each for each in dataclasses.fields(JobConfig) if each.name not in GROUPS]
    parts = [HEAD, "## Options of every job\n", *_table("", options, config)]
    for group, members in GROUPS.items():
        chosen = _default_member(config, group)
        parts += [f"\n## `{group}=`\n", f"The default is `{group}={chosen}`.\n"]
        for name, schema in members.items():
            file = conf / group / f"{name}.yaml"
            hidden = (*_said_by(group), "held_data")
            fields = [f for f in dataclasses.fields(schema) if f.name not in hidden]
            parts += [f"\n### `{group}={name}`\n", _head_comment(file) + "\n"]
            parts += _table(f"{group}.", fields, file) if fields else []
    return "\n".join(parts).rstrip() + "\n"


def _said_by(group: str) -> tuple[str, ...]:
    """Return the field in which a member of a group names itself, and which no user sets."""
    return (MEMBER_KEYS[group],)


def _table(prefix: str, fields: list[Any], file: Path) -> list[str]:
    values, comments = yaml.safe_load(file.read_text()), _comments(file)
    lines = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for each in fields:
        if not prefix and each.name == "output":
            for inner in dataclasses.fields(OutputConfig):
                key = f"output.{inner.name}"
                lines.append(_row(key, inner, values["output"][inner.name], comments[key]))
            continue
        default = values[each.name]
        # Of a selection each key is an option, and the value itself is one.
        keys = default if isinstance(default, dict) and comments.get(f"{each.name}.lines") else ()
        shown = None if keys else default
        lines.append(_row(prefix + each.name, each, shown, comments.get(each.name, "")))
        for key in keys:
            name = f"{each.name}.{key}"
            lines.append(_row(name, each, default[key], comments[name]))
    return lines


def _row(option: str, field: Any, default: Any, meaning: str) -> str:
    kind = str(field.type).replace("Union[int, str]", "int or str").replace(" | None", " or null")
    value = yaml.safe_dump(default, width=200).splitlines()[0]
    shown = "needed" if default == "???" else f"`{value}`"
    if not meaning and option.startswith("function."):
        meaning = "see [built-in problems](problems.md)"
    return f"| `{option}` | {kind} | {shown} | {meaning} |".replace("| |", "|  |")


def _comments(file: Path) -> dict[str, str]:
    """Return the comments behind each option and in the comment lines below it."""
    found: dict[str, str] = {}
    key = parent = ""
    for line in file.read_text().splitlines():
        match = re.match(r"\s*(\w+):[^#]*(?:#\s*(.*))?$", line)
        further = re.match(r"\s{8,}#\s*(.*)$", line)
        if match:
            parent = parent if line.startswith(" ") else match[1]
            key = f"{parent}.{match[1]}" if line.startswith(" ") else match[1]
            found.setdefault(key, (match[2] or "").strip())
        elif further and key:
            found[key] = f"{found[key]} {further[1]}".strip()
    return {key: text.replace("|", "\\|") for key, text in found.items()}


def _head_comment(file: Path) -> str:
    lines = []
    for line in file.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return " ".join(lines)


def _default_member(config: Path, group: str) -> str:
    defaults = yaml.safe_load(config.read_text())["defaults"]
    return next(entry[group] for entry in defaults if isinstance(entry, dict) and group in entry)


if __name__ == "__main__":
    main()
