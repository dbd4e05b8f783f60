"""The check of prose finds what it must, and nothing else."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_SPEC = importlib.util.spec_from_file_location("check_prose", ROOT / "docs/check_prose.py")
assert _SPEC is not None
assert _SPEC.loader is not None
check_prose = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(check_prose)


@pytest.mark.parametrize("phrase", check_prose.PHRASES)
def test_a_banned_phrase_is_found_with_its_line(phrase: str) -> None:
    text = f"A line.\nThis {phrase.upper()}, and more.\n"
    assert list(check_prose.banned_phrases(text)) == [(2, phrase.upper())]


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("# The job goes\n# on later.\n", "goes # on"),
        ("def _seconds_of_patience(): ...\n", "patience"),
        ("`go  on`", "go on"),
    ],
)
def test_a_phrase_over_two_lines_or_in_an_identifier_is_found(text: str, phrase: str) -> None:
    assert list(check_prose.banned_phrases(text)) == [(1, phrase)]


@pytest.mark.parametrize("text", ["waterproof", "go online", "a mandate on handlers", "impatience"])
def test_a_part_of_a_word_is_not_a_phrase(text: str) -> None:
    assert list(check_prose.banned_phrases(text)) == []


def test_the_command_prints_place_and_phrase_and_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.md").write_text("Fine.\n\nNobody reads this.\n")
    monkeypatch.setattr(check_prose, "ROOT", tmp_path)
    monkeypatch.setattr(check_prose, "tracked_files", lambda: ["page.md"])
    with pytest.raises(SystemExit) as stopped:
        check_prose.main()
    assert stopped.value.code == 1
    assert capsys.readouterr().out == "page.md:3:Nobody\n"


def test_clean_text_exits_with_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "page.md").write_text("Fine.\n")
    monkeypatch.setattr(check_prose, "ROOT", tmp_path)
    monkeypatch.setattr(check_prose, "tracked_files", lambda: ["page.md"])
    with pytest.raises(SystemExit) as stopped:
        check_prose.main()
    assert stopped.value.code == 0


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="lists the files that git tracks")
def test_code_and_pages_are_checked_and_built_in_problems_are_not() -> None:
    files = check_prose.tracked_files()
    assert {"README.md", "jobs/run.py", "conf/config.yaml"} <= set(files)
    assert not [path for path in files if path.startswith("jobs/problems/")]
