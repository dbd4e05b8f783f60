"""The software accelerator: compiles `device.cpp`, and makes it a backend of torch."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import torch
from torch.utils import backend_registration

KIND = "software"
SOURCE = Path(__file__).with_name("device.cpp")
# A lock of torch lets other processes wait for the one that compiles. Its kernels are torch's own,
# so that optimizing takes longer than it saves.
COMPILE = """
import sys
from torch.utils import cpp_extension

name, flags = "software_device", ["-O1"]
cpp_extension.load(
    name, [sys.argv[1]], extra_cflags=flags, build_directory=sys.argv[2], is_python_module=False
)
"""


def why_not() -> str | None:
    """Return why the backend cannot be compiled here; None if it can."""
    missing = [name for name in ("g++", "ninja") if shutil.which(name, path=_path()) is None]
    return f"needs {' and '.join(missing)}" if missing else None


def _path() -> str:
    """Return the path of programs, with those of this environment, where ninja may be installed."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def library() -> Path:
    """Compile the backend, unless an earlier run has, and return the library."""
    sources = sorted(each for each in SOURCE.parent.iterdir() if each.is_file())
    texts = "".join(each.read_text() for each in sources)
    known = f"{torch.__version__} {sys.version} {texts}"
    digest = hashlib.sha256(known.encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"autodiff-jobs-{os.getuid()}-software-{digest}"
    built = folder / "software_device.so"
    if (folder / "complete").exists():
        return built
    folder.mkdir(mode=0o700, exist_ok=True)
    # Compiling loads the library, which is not for this process.
    command = [sys.executable, "-c", COMPILE, str(SOURCE), str(folder)]
    subprocess.run(command, env={**os.environ, "PATH": _path()}, check=True)
    # What a backend's package installs, so that torch loads it in every process by itself.
    installed = folder / f"{KIND}-1.dist-info"
    installed.mkdir(exist_ok=True)
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {KIND}\nVersion: 1\n")
    entry = f"[torch.backends]\n{KIND} = tests.accelerator.software:autoload\n"
    (installed / "entry_points.txt").write_text(entry)
    (folder / "complete").touch()
    return built


def autoload() -> None:
    """Register the backend; torch calls this where it is imported, by an entry point."""
    if hasattr(torch, KIND):
        return
    torch.ops.load_library(str(library()))
    backend_registration.rename_privateuse1_backend(KIND)
    torch._register_device_module(KIND, _module())
    backend_registration.generate_methods_for_privateuse1_backend()


def _module() -> types.ModuleType:
    """Return the module `torch.software`, with the functions that torch asks of a backend."""
    module = types.ModuleType(f"torch.{KIND}")
    operators = torch.ops.software

    def index_of(device: torch.device | str | int | None = None) -> int:
        if isinstance(device, int):
            return device
        index = None if device is None else torch.device(device).index
        return torch.accelerator.current_device_index() if index is None else index

    def get_rng_state(device: torch.device | str | int | None = None) -> torch.Tensor:
        state = torch.frombuffer(bytearray(operators.rng_state_size()), dtype=torch.uint8)
        operators.read_rng_state(index_of(device), state.data_ptr())
        return state

    def manual_seed_all(seed: int) -> None:
        for device in range(2):
            operators.seed(device, seed)

    given = {
        "is_available": lambda: True,
        "device_count": lambda: 2,
        "current_device": torch.accelerator.current_device_index,
        "set_device": lambda device: torch.accelerator.set_device_index(index_of(device)),
        "is_initialized": lambda: True,
        "_is_in_bad_fork": lambda: False,
        "manual_seed_all": manual_seed_all,
        "manual_seed": lambda seed: operators.seed(index_of(), seed),
        "get_rng_state": get_rng_state,
        "set_rng_state": lambda state, device=None: operators.write_rng_state(
            index_of(device), state.data_ptr()
        ),
        "get_amp_supported_dtype": lambda: [torch.float16, torch.bfloat16],
    }
    for name, function in given.items():
        setattr(module, name, function)
    return module
