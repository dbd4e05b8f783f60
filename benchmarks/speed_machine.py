# JAX is a peer in these benchmarks, and installed for them only.
# pyright: reportMissingImports=false
"""The machine of the speed benchmark: its description and its rates."""

from __future__ import annotations

import importlib.util
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import clocks
import h5py
import numpy as np
import torch
from clocks import median_time
from timing import clock_for
from workloads import Instance

BYTES_IN_USE = 4 * 2**30
"""The estimated memory that a chunk may need at most; larger chunks are left out."""

EDGE_OF_PRODUCTS = {"cuda": 4096}
"""The size of a product that reaches the best rate; 2048 on other devices."""


def limit_threads(count: int) -> None:
    """Limit the threads of torch and JAX; call it before JAX is loaded."""
    torch.set_num_threads(count)
    if count == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def settle_jax(device: torch.device) -> None:
    """Give JAX torch's device and precision, and leave it no memory; call it before loading."""
    if device.type == "cpu":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        return
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Otherwise products of float32 are computed in TF32, which torch does not do by default.
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")


def why_without_jax(device: torch.device) -> str | None:
    """Return why JAX is not a contender, or None if it is one."""
    if importlib.util.find_spec("jax") is None:
        return "not installed"
    if device.type == "cpu":
        return None
    import jax

    try:
        found = {each.platform for each in jax.devices()}
    except RuntimeError as error:
        return f"left out: {error}"
    return None if found & {"gpu", "cuda"} else "left out: installed for the CPU only"


def machine(device: torch.device) -> dict[str, Any]:
    """Describe the machine and the versions of the libraries."""
    versions = {"torch": torch.__version__, "h5py": h5py.__version__, "numpy": np.__version__}
    reason = why_without_jax(device)
    if reason is None:
        import jax

        versions["jax"] = jax.__version__
    elif device.type != "cpu":
        versions["jax"] = reason
    if device.type != "cpu":
        from device_figures import description

        versions |= description(device)
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "clock": "processor time" if clocks.now is time.process_time else "wall",
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        **versions,
    }


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "")


def floor(device: torch.device) -> dict[str, float]:
    """Measure the rates of this machine: products, copies and sequential writing."""
    clock = clock_for("torch", device)
    edge = EDGE_OF_PRODUCTS.get(device.type, 2048)
    a, b = torch.randn(edge, 2 * edge), torch.randn(2 * edge, 2 * edge)
    operations = 2 * edge * 2 * edge * 2 * edge
    left, right = a.to(device), b.to(device)
    rates = {"torch_gemm_flops": operations / median_time(lambda: left @ right, clock)}
    if why_without_jax(device) is None:
        import jax
        import jax.numpy as jnp

        c, d = jnp.asarray(a.numpy()), jnp.asarray(b.numpy())
        product = jax.jit(lambda c, d: c @ d)
        seconds = median_time(lambda: jax.block_until_ready(product(c, d)))
        rates["jax_gemm_flops"] = operations / seconds
    source = torch.ones(64 * 2**20, device=device)
    target = torch.empty_like(source)
    seconds = median_time(lambda: target.copy_(source), clock)
    rates["copied_bytes_per_second"] = 2**28 / seconds
    if device.type != "cpu":
        from device_figures import rate_of_copies_to_host

        rates["copied_to_host_bytes_per_second"] = rate_of_copies_to_host(device)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "sequential"
        rates["written_bytes_per_second"] = 2**28 / median_time(lambda: write_plainly(path))
    return rates


def write_plainly(path: Path) -> None:
    """Write 256 MiB from memory to the disk."""
    piece = bytes(2**22)
    with path.open("wb") as file:
        for _ in range(64):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def bytes_for_a_chunk(device: torch.device) -> int:
    """Return the estimated memory that a chunk may need at most.

    On a device it is half of the free memory, because several contenders exist at once.
    """
    if device.type == "cpu":
        return BYTES_IN_USE
    from device_figures import free_bytes

    return free_bytes(device) // 2


def fraction_of_floor(
    instance: Instance, seconds: float, floor: dict[str, float]
) -> dict[str, float]:
    """Return operations and bytes per second as fractions of the machine's rates."""
    size = instance.rows * instance.columns * 4
    fractions = {"matrix_bytes_of_copying": size / seconds / floor["copied_bytes_per_second"]}
    if to_host := floor.get("copied_to_host_bytes_per_second"):
        # Above one, copying to the host bounds a job that writes a file.
        fractions["matrix_bytes_of_copying_to_host"] = size / seconds / to_host
    if instance.workload.problem == "mlp":
        n = instance.options["n"]
        # The products except the last one, which with one-hot vectors is a selection.
        operations = 2 * n * (4 * n * n + 2 * n * n)
        fractions["products_of_gemm"] = operations / seconds / floor["torch_gemm_flops"]
    return fractions
