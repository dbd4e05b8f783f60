"""Modules whose parameters are parts of what several processes hold are refused by name."""

from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, distribute_tensor

import jobs


@pytest.mark.filterwarnings("ignore")
def test_a_module_with_distributed_tensors_is_refused(directory: Path) -> None:
    place = f"file://{directory / 'store'}"
    distributed.init_process_group("gloo", rank=0, world_size=1, init_method=place)
    try:
        module = torch.nn.Linear(3, 2).double()
        mesh = init_device_mesh("cpu", (1,))
        whole = distribute_tensor(module.weight.detach(), mesh, [Replicate()])
        module.weight = torch.nn.Parameter(whole)
        with pytest.raises(jobs.JobError, match="DTensor"):
            jobs.plan("jacobian", module, torch.ones(3, dtype=torch.float64), devices="cpu")
    finally:
        distributed.destroy_process_group()
