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
    text, exit_code = failure_message(error)
    assert exit_code == code
    assert text.startswith("interrupted; what was computed is kept")


class TextlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("there is no text")


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (RuntimeError("a fault\nin detail"), "error: RuntimeError: a fault"),
        (KeyError(), "error: KeyError"),
        (TextlessError(), "error: TextlessError"),
    ],
)
def test_a_fault_of_this_program_is_one_line_with_its_place(error: Exception, start: str) -> None:
    with pytest.raises(type(error)) as caught:
        raise error
    text, code = failure_message(caught.value)
    assert code == 1
    (line,) = text.splitlines()
    assert line.startswith(f"{start} (")
    assert __file__ in line
    assert "HYDRA_FULL_ERROR=1 prints the traceback" in line


def test_an_error_of_a_launcher_is_a_lost_job() -> None:
    with pytest.raises(RuntimeError) as caught:
        exec(
            compile(
                "raise RuntimeError('job 7\\nwas lost\\nfor ever')", "/submitit/core.py", "exec"
            )
        )
    text, exit_code = failure_message(caught.value)
    assert exit_code == 1
    assert text.startswith("error: job 7 was lost; queued jobs of the sweep continue")
