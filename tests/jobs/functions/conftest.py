from pathlib import Path

import pytest

from tests.jobs.support.own_model import MODEL


@pytest.fixture
def model(directory: Path) -> Path:
    """Write the user's file `code/model.py`, which imports a file beside it."""
    (directory / "code").mkdir()
    (directory / "code/helper.py").write_text("def half(x): return x / 2\n")
    (directory / "code/model.py").write_text(MODEL)
    return directory
