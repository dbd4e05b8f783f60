"""The pages of the docs that need public libraries: everything on them runs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ecosystem.test_libraries import needing
from tests.test_documentation import ROOT, WITH_LIBRARIES, steps

pytestmark = pytest.mark.skipif(
    "AUTODIFF_JOBS_ECOSYSTEM" not in os.environ, reason="make test-ecosystem runs them"
)


@pytest.mark.parametrize("page", WITH_LIBRARIES)
def test_everything_on_a_page_runs(page: str, tmp_path: Path) -> None:
    for library in ("ase", "chgnet", "dxtb"):
        needing(library)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for kind, body in steps((ROOT / page).read_text()):
        if kind.endswith(".py"):
            (tmp_path / kind).write_text(body)
            continue
        words = ["python", "-c", body] if kind == "python" else shlex.split(body)
        assert words[0] == "python", body
        command = [sys.executable, *words[1:]]
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280
        )
        assert ended.returncode == 0, f"{body}\n{ended.stdout}\n{ended.stderr}"
