"""``python -m outputs.verify FILE...``: check result files without the functions behind them."""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from outputs._analysis.record import is_record
from outputs._commands import command_parser, output_console, pair_table, print_line
from outputs._format.verification_state import VerificationState
from outputs._verification.isolated import verify_apart
from outputs._verification.report import Verification

_WIDTH_WITHOUT_TERMINAL = 160


def main(arguments: list[str] | None = None) -> int:
    """Run the command; each file is checked in a separate process.

    Args:
        arguments: The command line's arguments; None for those of the process.

    Returns:
        The exit code: 0 if every file is verified; that of the worst file otherwise: 1 if it is
        damaged or missing, 5 if it is contradicted, 4 if not verified, 3 if partly verified.
    """
    parser = command_parser(
        "verify", "Check structure, ledger, checksums and probe products of result files."
    )
    parser.add_argument(
        "file", nargs="+", help="files, directories (all results *.h5 below), globs"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    options = parser.parse_args(arguments)
    paths, empty = _files(options.file)
    for pattern in empty:
        print_line(f"There is no result {pattern}.", error=True)
    found = [verify_apart(path) for path in paths]
    if options.json:
        print(json.dumps(list(map(_figures, found)), indent=2))
    elif found:
        console = output_console(_WIDTH_WITHOUT_TERMINAL)
        console.print(_details(found[0]) if len(found) == 1 else _table(found))
    codes = {one.exit_code for one in found} | ({1} if empty or not found else set())
    return 1 if 1 in codes else max(codes)


def _figures(one: Verification) -> dict[str, Any]:
    verdict = one.verdict.record()
    return {"path": one.path, **verdict, "ok": one.ok, **asdict(one)}


def _files(arguments: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Return the files that the arguments name, each once, and the arguments that match none."""
    found: dict[Path, None] = {}
    empty = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            matches = [each for each in sorted(path.rglob("*.h5")) if not is_record(each)]
        elif path.exists():
            matches = [path]
        else:
            matches = sorted(map(Path, glob.glob(argument, recursive=True)))
        found |= dict.fromkeys(matches)
        if not matches:
            empty.append(argument)
    return list(found), empty


def _details(one: Verification) -> Table:
    table = pair_table("Verification")
    for name, value in {**_cells(one), "result": _result(one, str(one.verdict))}.items():
        table.add_row(name, value)
    return table


def _table(found: list[Verification]) -> Table:
    table = Table()
    rows = [_cells(one) for one in found]
    for heading in rows[0]:
        table.add_column(heading, overflow="fold")
    for cells in rows:
        table.add_row(*cells.values())
    return table


def _cells(one: Verification) -> dict[str, Text]:
    facts = {name: Text(value) for name, value in _facts(one).items()}
    return {"result": _result(one, one.verdict.state.value), **facts}


def _result(one: Verification, text: str) -> Text:
    """Return the problems of a file, or a text in the colour of its state."""
    if one.problems:
        return Text("; ".join(one.problems), VerificationState.CONTRADICTED.style)
    return Text(text, one.verdict.state.style)


def _facts(one: Verification) -> dict[str, str]:
    speed = one.bytes_read / 2**20 / one.seconds if one.seconds and one.bytes_read else 0
    return {
        "file": one.path,
        "matrix": f"{one.operation} {' x '.join(map(str, one.shape))} {one.dtype}"
        if one.shape
        else "",
        "blocks": str(one.blocks),
        "not finite": "" if one.nonfinite is None else str(one.nonfinite),
        "row error": _figure(one.right_error),
        "column error": _figure(one.left_error),
        "allowed": _figure(one.tolerance),
        "asymmetry": _figure(one.asymmetry),
        "time": f"{one.seconds:.2f} s" + (f", {speed:.0f} MiB/s" if speed else ""),
    }


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


if __name__ == "__main__":
    sys.exit(main())
