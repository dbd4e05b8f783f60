"""``python -m outputs.analyse FILE``: eigenvalues and other answers from a result, out of core."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.text import Text

from outputs._analysis import determinants, gram, quadrature, record, solutions, spectra
from outputs._analysis.answer import Answer
from outputs._analysis.budget import Budget, parse_size
from outputs._analysis.journal import opened_journal
from outputs._analysis.workspace import Workspace
from outputs._commands import (
    SafeConsole,
    command_parser,
    output_console,
    pair_table,
    print_line,
    run_command,
)
from outputs._errors import MissingDependencyError, ResultError
from outputs._optional import load
from outputs._reading.any_result import AnyResult, opened
from outputs._storage.files import put_in_place
from outputs._writing.directories import scratch_for

_WIDTH_WITHOUT_TERMINAL = 160


@dataclass(frozen=True)
class Question:
    """A quantity that was asked for.

    Attributes:
        name: The name of its answer.
        request: What was asked for, as `Answer.request` has it.
        require: Checks that it can be found, before work starts.
        answer: Finds it.
    """

    name: str
    request: str
    require: Callable[[Workspace], Any]
    answer: Callable[[Workspace], Answer]


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The command line's arguments; None for those of the process.

    Returns:
        The exit code: 0, 1 after one sentence on stderr, 130 when interrupted.
    """
    options = _parser().parse_args(arguments)
    return run_command(
        lambda: _analyse_and_print(options),
        subject="The analysis",
        interrupted="interrupted; the same command continues from there",
    )


def _analyse_and_print(options: argparse.Namespace) -> int:
    limit = None if options.memory is None else parse_size(options.memory)
    questions = _questions(options)
    with opened(options.file) as result:
        target = Path(options.output or record.record_path(result.path)).absolute()
        result.require_intact()
        identity = result.content_identity()
        known = _known(target, identity)
        if not questions and not known:
            raise ResultError(
                f"There is no analysis of {result.path} yet; ask for one, for example with "
                "--eigenvalues 20 --trace."
            )
        again = {one.name for one in questions} if options.renew else set()
        kept = {name: answer for name, answer in known.items() if name not in again}
        answers, refusals = _answered(result, questions, kept, limit, target)
        shown = {one.name: answers[one.name] for one in questions if one.name in answers}
        if shown or not questions:
            _print(result, shown or answers)
            _draw(result, answers, target.with_suffix(".png"))
            print_line(target)
    if refusals:
        raise ResultError("\n".join(refusals))
    return 0


def _known(target: Path, identity: str) -> dict[str, Answer]:
    if not target.exists():
        return {}
    found = record.stored_answers(target, identity)
    if found is None:
        print_line(f"{target} is of another content of the result, and is replaced.", error=True)
    return found or {}


def _answered(
    result: AnyResult,
    questions: list[Question],
    known: dict[str, Answer],
    limit: int | None,
    target: Path,
) -> tuple[dict[str, Answer], list[str]]:
    """Return the known answers with the new ones, and why others were refused.

    Each new answer is in the file at once.
    """
    missing = [
        one for one in questions if one.name not in known or known[one.name].request != one.request
    ]
    refusals: list[str] = []
    if not missing:
        return known, refusals
    with SafeConsole(stderr=True).status("reading") as status:
        passes = 0

        def report(text: str) -> None:
            nonlocal passes
            passes += not text
            status.update(text or f"{name}: pass {passes}")

        name = "checks"
        work = Workspace(result, Budget.of_process(limit), report)
        for one in missing:
            one.require(work)
        for one in missing:
            name, passes = one.name, 0
            try:
                known = _with_answer(result, one, known, work, target)
            except ResultError as error:
                refusals.append(str(error))
    return known, refusals


def _with_answer(
    result: AnyResult,
    question: Question,
    known: dict[str, Answer],
    work: Workspace,
    target: Path,
) -> dict[str, Answer]:
    products = target.with_name(f"{target.name}.products")
    key = f"{result.content_identity()} {question.name} {question.request} {work.budget.free}"
    with opened_journal(products, key) as journal, scratch_for(target) as scratch:
        work.journal = journal
        answer = question.answer(work)
        record.write_record(scratch, result, answer, known, target if known else None)
        put_in_place(scratch, target)
    return {**known, answer.name: answer}


def _print(result: AnyResult, answers: Mapping[str, Answer]) -> None:
    console = output_console(_WIDTH_WITHOUT_TERMINAL)
    table = pair_table(f"Analysis of {result.path.name}")
    table.add_row("verification", Text(str(result.verdict), result.verdict.state.style))
    for name, answer in answers.items():
        table.add_row(name.replace("_", " "), Text(answer.summary))
        table.add_row("", Text(answer.method, "dim"))
    found = [one.facts["asymmetry"] for one in answers.values() if "asymmetry" in one.facts]
    if found:
        table.add_row("symmetry", Text(f"‖A - Aᵀ‖ is {max(map(float, found)):.1e} of ‖A‖"))
    console.print(table)


def _draw(result: AnyResult, answers: Mapping[str, Answer], target: Path) -> None:
    """Draw what can be drawn, if Matplotlib is installed."""
    try:
        load("matplotlib", "plot", "The figure of an analysis")
    except MissingDependencyError:
        return
    from outputs._analysis.figure import DRAWN, draw

    if not set(DRAWN) & set(answers):
        return
    title = f"{result.operation.capitalize()} of {result.function}"
    with scratch_for(target) as scratch:
        draw(answers, title, result.verdict).savefig(scratch, format="png", dpi=120)
        os.replace(scratch, target)


def _questions(options: argparse.Namespace) -> list[Question]:
    """Return what the options ask for, the cheapest first."""
    probes = options.probes
    found = list(_spectral_questions(options))
    if options.trace:
        check = partial(determinants.require_diagonal, what="trace")
        found.append(Question("trace", "", check, determinants.trace))
    if options.log_determinant:
        check = partial(determinants.require_log_determinant, probes=probes)
        answer = partial(determinants.log_determinant, probes=probes)
        found.append(Question("log_determinant", str(probes), check, answer))
    if options.solve is not None:
        b = _loaded(options.solve)
        check, answer = partial(solutions.right_side, b=b), partial(solutions.solve, b=b)
        found.append(Question("solution", solutions.digest(b), check, answer))
    for side in options.gram or ():
        check, answer = partial(gram.require_gram, side=side), partial(gram.gram, side=side)
        found.append(Question(f"gram_{side}", side, check, answer))
    return found


def _spectral_questions(options: argparse.Namespace) -> Iterator[Question]:
    for name, given in (
        ("eigenvalues", options.eigenvalues),
        ("singular_values", options.singular_values),
    ):
        if given is not None:
            count = spectra.checked_count(name.replace("_", "-"), given)
            yield Question(
                name,
                "all" if count is None else str(count),
                partial(getattr(spectra, f"require_{name}"), count=count),
                partial(getattr(spectra, name), count=count),
            )
    if options.condition:
        yield Question("condition", "", spectra.require_condition, spectra.condition)
    if options.spectral_density:
        check = partial(spectra.require_spectral_density, probes=options.probes)
        answer = partial(spectra.spectral_density, probes=options.probes)
        yield Question("spectral_density", str(options.probes), check, answer)


def _loaded(path: Path) -> np.ndarray:
    """Read the right side of an equation from a file of NumPy.

    Raises:
        ResultError: If it is no such file.
    """
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ResultError(f"There is no file {path}.") from None
    except (ValueError, EOFError, OSError) as error:
        raise ResultError(f"{path} holds no array of NumPy ({error}).") from error


def _probes(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text} is no number from 2 on")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "analyse",
        "Answer questions about the matrix of a result without loading it where it does not fit. "
        "The answers are kept in a file beside it; an interrupted command continues.",
    )
    parser.add_argument("file", type=Path, help="a finished result")
    many: dict[str, Any] = {"nargs": "?", "const": str(spectra.COUNT), "metavar": "K|all"}
    parser.add_argument(
        "--eigenvalues", help="so many at each end of a symmetric matrix's spectrum", **many
    )
    parser.add_argument("--singular-values", help="so many of the largest", **many)
    parser.add_argument("--condition", action="store_true", help="the condition number")
    parser.add_argument(
        "--spectral-density", action="store_true", help="the distribution of the eigenvalues"
    )
    parser.add_argument("--trace", action="store_true", help="the sum of the diagonal")
    parser.add_argument("--log-determinant", action="store_true", help="log |det|")
    parser.add_argument("--solve", type=Path, metavar="B.npy", help="the solution of A x = b")
    parser.add_argument(
        "--gram", action="append", choices=("rows", "columns"), help="their products"
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="what the process may take; by default half of what is free",
    )
    parser.add_argument(
        "--probes",
        type=_probes,
        default=quadrature.PROBES,
        metavar="N",
        help="random vectors of an estimate (default %(default)s)",
    )
    parser.add_argument(
        "--renew", action="store_true", help="compute again what the file of answers has"
    )
    parser.add_argument(
        "-o", "--output", metavar="PATH", help="the file of answers; by default beside the result"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
