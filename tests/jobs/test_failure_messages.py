"""The message and the exit code of every kind of failure."""

import pytest
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from jobs.errors import JobError
from jobs.failure_messages import failure_message
from jobs.machine.interruption import Interrupted

SLURM = MissingConfigException("not found", "hydra/launcher/submitit_slurm", ["basic"])
EXTRA = "comes with pip install 'autodiff-jobs[slurm]'"


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (JobError("it failed\n  in detail"), "error: it failed\n  in detail", 1),
        (HydraException("wrong"), "error: wrong", 1),
        (OmegaConfBaseException("wrong"), "error: wrong", 1),
        (
            SLURM,
            "error: not found; submitit_slurm comes with pip install 'autodiff-jobs[slurm]'",
            1,
        ),
        (PermissionError(13, "Permission denied", "runs"), "error: runs: Permission denied", 1),
        (OSError("the disk failed"), "error: input or output: the disk failed", 1),
        (BrokenPipeError(32, "Broken pipe"), "", 141),
    ],
)
def test_a_failure_has_a_message_and_an_exit_code(error: Exception, text: str, code: int) -> None:
    assert failure_message(error) == (text, code)


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Interrupted(15), 143)])
def test_an_interruption_is_not_an_error(error: KeyboardInterrupt, code: int) -> None:
    failure = failure_message(error)
    assert failure is not None
    text, exit_code = failure
    assert exit_code == code
    assert text.startswith("interrupted; what was computed is kept")


def test_an_exception_of_this_program_keeps_its_traceback() -> None:
    assert failure_message(RuntimeError("a bug")) is None


def test_an_error_of_a_launcher_is_a_lost_job() -> None:
    with pytest.raises(RuntimeError) as caught:
        exec(
            compile(
                "raise RuntimeError('job 7\\nwas lost\\nfor ever')", "/submitit/core.py", "exec"
            )
        )
    failure = failure_message(caught.value)
    assert failure is not None
    text, exit_code = failure
    assert exit_code == 1
    assert text.startswith("error: job 7 was lost; queued jobs of the sweep continue")
