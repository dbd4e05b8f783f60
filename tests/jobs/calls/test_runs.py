"""Jobs that are submitted, and runs that are found again."""

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import jobs
from jobs.functions.live.transport import Packed, unpacked
from outputs import Result


def waves(x: Tensor) -> Tensor:
    return 2 * x.sin()


def test_shards_of_a_submitted_job_are_merged_and_found_again(directory: Path) -> None:
    x = torch.arange(24.0)
    options: Any = {"strategy": "reverse-loop", "progress": "quiet"}
    run = jobs.submit("jacobian", waves, x, cluster="debug", shards=3, **options)
    assert [each["state"] for each in run.status()] == ["finished"] * 3
    (found,) = jobs.find("runs")
    assert found.directory == run.directory
    with found.result() as result:
        assert isinstance(result, Result)
        np.testing.assert_allclose(result[...], np.diag(2 * np.cos(np.arange(24.0))), atol=1e-12)
    assert found.state == "finished"
    table = jobs.report("runs")
    assert set(table["state"]) == {"finished"}
    assert "verified" in set(table["verification"])
    # The command's module stands in the place of the function once it is imported.
    importlib.import_module("jobs.report")
    assert len(jobs.report("runs")) == len(table)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cluster": "slurms"}, "did you mean slurm?"),
        ({"cluster": "debug", "shards": 3}, "strategy=auto: every task could choose"),
        ({"cluster": "debug", "shards": 0, "strategy": "vectorize"}, "shard"),
        ({"cluster": "local", "settings": {"nonsense": 1}}, "settings="),
        ({"cluster": "debug", "overwrite": True}, "overwrite=true"),
    ],
)
def test_what_cannot_be_submitted(given: dict[str, Any], message: str, directory: Path) -> None:
    submit: Any = jobs.submit
    with pytest.raises(jobs.JobError, match=message.replace("?", r"\?")):
        submit("jacobian", waves, torch.ones(4), progress="quiet", **given)
    assert list(directory.iterdir()) == []


def failing_elsewhere(x: Tensor) -> Tensor:
    if os.environ.get("SUBMITIT_EXECUTOR") and not Path("repaired").exists():
        raise ValueError("this\nfails")
    return 3 * x


# submitit leaves the process to itself.
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_task_that_fails_is_named_and_the_same_call_continues(directory: Path) -> None:
    """The task is a process of its own, which finds this module by the search path of this one."""
    given: Any = ("jacobian", failing_elsewhere, torch.ones(4))
    run = jobs.submit(*given, cluster="local", progress="quiet")
    with pytest.raises(jobs.JobError, match=r"the job is failed \(the same.*ValueError: this"):
        run.result(timeout=100)
    assert jobs.report("runs")["state"].tolist() == ["failed"]
    Path("repaired").touch()
    # All tasks have ended: other ones may follow.
    with jobs.submit(*given, cluster="debug", progress="quiet").result() as result:
        assert isinstance(result, Result)
        np.testing.assert_allclose(result[...], 3 * np.eye(4))
    assert len(list(run.directory.glob("submission-*"))) == 1


def test_a_parcel_keeps_tensors_arrays_and_what_is_shared(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    parameter = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    held = {
        "tensor": tensor,
        "same": tensor,
        "parameter": parameter,
        "transposed": tensor.T,
        "empty": torch.zeros(0, 3),
        "array": np.arange(4),
        "function": lambda x: x + tensor,
    }
    packed = Packed(held, "the function")
    file = (tmp_path / "tensors").open("wb")
    packed.write(file.fileno())
    file.close()
    assert len(packed.parcel.data) < 10_000
    found = unpacked(packed.parcel, os.open(tmp_path / "tensors", os.O_RDONLY))
    assert found["tensor"] is found["same"]
    for name in ("tensor", "parameter", "transposed", "empty"):
        assert torch.equal(found[name], held[name])
    assert isinstance(found["parameter"], torch.nn.Parameter)
    assert not found["parameter"].requires_grad
    np.testing.assert_array_equal(found["array"], np.arange(4))
    assert torch.equal(found["function"](0), tensor)
    # Private: writing changes neither the file nor the sender's tensor.
    found["tensor"].zero_()
    assert tensor.sum() == 15
