"""A sample of the hostile files of `tests/support`; `make torture` checks 2,000."""

from __future__ import annotations

import os

from tests.support.hostile_reading import run

FIRST, COUNT = 1000, int(os.environ.get("AUTODIFF_JOBS_HOSTILE_FILES", "12"))


def test_every_reader_answers_or_refuses(tmp_path):
    bad = [each for each in run(tmp_path, range(FIRST, FIRST + COUNT)) if each[2]]
    assert not bad
