"""Print the phrases of the tracked text that CONTRIBUTING.md asks to avoid, as file:line:phrase.

python docs/check_prose.py  exits with 1 if it finds any
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PHRASES = (
    "held against",
    "is told",
    "are told",
    "goes on",
    "gone on",
    "go on",
    "nobody",
    "whoever",
    "patience",
    "for want of",
    "proof",
    "proved",
    "proves",
    "unproved",
    "at hand",
    "of one's own",
    "survives most",
)
SUFFIXES = (".py", ".md", ".yaml")
# The source of a built-in problem is part of the fingerprint of its results, so it stays as it is.
# The check and its test contain the phrases themselves.
EXEMPT = ("jobs/problems/", "docs/check_prose.py", "tests/test_prose.py")
# A phrase may be broken over two lines, with the mark of a comment between its words. Underscores
# separate words too, so that identifiers are found.
_BETWEEN = r"(?:[ \t_]+|[ \t]*\n[ \t]*(?:#:?[ \t]*)?)"
_PATTERN = re.compile(
    r"(?<![a-z0-9])("
    + "|".join(_BETWEEN.join(map(re.escape, phrase.split())) for phrase in PHRASES)
    + r")(?![a-z0-9])",
    re.IGNORECASE,
)


def main() -> None:
    """Print every banned phrase and exit with 1 if there is one."""
    found = [
        f"{path}:{line}:{phrase}"
        for path in tracked_files()
        for line, phrase in banned_phrases((ROOT / path).read_text())
    ]
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)


def tracked_files() -> Iterable[str]:
    """Return the paths, relative to the root, of the files that are checked."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [
        path
        for path in listed.stdout.splitlines()
        if path.endswith(SUFFIXES) and not path.startswith(EXEMPT) and (ROOT / path).is_file()
    ]


def banned_phrases(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the words of every banned phrase of a text."""
    for match in _PATTERN.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, " ".join(match[0].split())


if __name__ == "__main__":
    main()
