"""Run every command and every block of Python in the README and the docs, page by page."""

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.warm_interpreter import WarmInterpreter

ROOT = Path(__file__).parent.parent
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
]
# Run by tests/ecosystem, in whose environment the libraries are.
WITH_LIBRARIES = ["docs/vibrations.md"]
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^ {4}((?:python -m|python \w+\.py|autodiff-jobs|make)\b.*)$", re.MULTILINE)
FILE_NAME = re.compile(r"`(\w+\.py)`:?\s*$")
# The test itself runs in the environment that this line activates.
ACTIVATION = ". .venv/bin/activate"


def steps(text: str) -> list[tuple[str, str]]:
    """Return the blocks of a page in order: (kind, content); for a named file, (name, content)."""
    found = []
    for match in BLOCK.finditer(text):
        indent, language, body = match.groups()
        body = "\n".join(line.removeprefix(indent) for line in body.splitlines()) + "\n"
        named = FILE_NAME.search(text[: match.start()].rstrip())
        kind = named.group(1) if named and language == "python" else language
        found.append((match.start(), kind, body))
    fenced = [match.span() for match in BLOCK.finditer(text)]
    for match in COMMAND.finditer(text):
        if not any(start <= match.start() < stop for start, stop in fenced):
            found.append((match.start(), "bash", match.group(1) + "\n"))
    return [(kind, body) for _, kind, body in sorted(found)]


Run = Callable[[list[str], Path], None]


@pytest.fixture(scope="module")
def run() -> Run:
    """Return a function that runs ``python`` with some arguments in a directory."""
    interpreter = WarmInterpreter()

    def words_in(words: list[str], directory: Path) -> None:
        code, printed = interpreter.run(words, directory)
        assert code == 0, f"{words}\n{printed}"

    return words_in


def make_result(run: Run, directory: Path) -> None:
    """Make the result that a page about results reads."""
    job = ["op=jacobian", "strategy=vectorize", "function=mlp"]
    run(["-m", "jobs.run", *job], directory)
    (result,) = directory.glob("runs/*/result.h5")
    result.rename(directory / "result.h5")


@pytest.mark.parametrize("page", [page for page in PAGES if page not in WITH_LIBRARIES])
def test_everything_on_a_page_runs(page: str, run: Run, tmp_path: Path) -> None:
    text = (ROOT / page).read_text()
    if '"result.h5"' in text:
        make_result(run, tmp_path)
    for kind, body in steps(text):
        if kind.endswith(".py"):
            (tmp_path / kind).write_text(body)
        elif kind == "python":
            run(["-c", body], tmp_path)
        elif kind == "bash":
            for line in body.splitlines():
                words = shlex.split(line, comments=True)
                if words[0] == "make":
                    # The suite and the benchmarks are too long to run here; make run has a test.
                    assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), line
                elif line != ACTIVATION:
                    assert words[0] == "python", line
                    run(words[1:], tmp_path)


def test_pages_hold_commands_at_all() -> None:
    kinds = [kind for page in PAGES for kind, _ in steps((ROOT / page).read_text())]
    assert kinds.count("bash") >= 10
    assert kinds.count("python") >= 8


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.skipif(
    not (ROOT / ".venv/.installed").exists(),
    reason="the checkout was not set up by make, and the test installs nothing",
)
def test_make_run_computes_the_default_job() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "MAKEFLAGS"}
    done = subprocess.run(
        ["make", "--no-print-directory", "run"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path(done.stdout.splitlines()[-1]).is_file()


def test_every_promise_names_a_test_that_exists() -> None:
    """In the tables with a column `test`."""
    found = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    promises = 0
    for page in ("resuming", "file-format"):
        of_table = False
        for line in (ROOT / f"docs/{page}.md").read_text().splitlines():
            if not line.startswith("|"):
                of_table = False
            elif line.endswith("| test |"):
                of_table = True
            elif of_table and not line.startswith("|---"):
                promises += 1
                names = re.findall(r"`(test_\w+)`", line.rsplit("|", 2)[1])
                assert names, line
                assert set(names) <= found, line
    assert promises > 30
