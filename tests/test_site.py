"""The documentation site builds without warnings, and its generated pages are up to date."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-f",
        str(config),
        "-d",
        str(site),
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_reference_of_options_is_that_of_the_schema() -> None:
    command = [sys.executable, str(ROOT / "docs/generate_options.py"), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    done = build(ROOT / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    for page, word in (
        ("index.html", "Tutorial"),
        ("options/index.html", "inputs.slice"),
        ("api/outputs/index.html", "open_result"),
        ("api/autodiff_core/index.html", "chunk_size"),
    ):
        assert word in (tmp_path / "site" / page).read_text(), page


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("[nowhere](nowhere.md)\n")
    config = (ROOT / "mkdocs.yml").read_text()
    kept, _, _ = config.partition("nav:\n  - Home")
    (tmp_path / "mkdocs.yml").write_text(
        kept.replace("docs_dir: docs", f"docs_dir: {tmp_path}/docs")
    )
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere.md" in done.stdout + done.stderr


def test_the_readme_is_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100
