"""Processes that begin with what every command imports: torch alone takes two seconds.

A server, which this file is as a script, has imported it and forks. What it forks becomes a child
of the process that asked, with the arguments, environment, directory and descriptors that were
given, and so it is to the rest of the system what `subprocess.Popen` starts: it is waited for,
stopped, killed and orphaned alike, and ends as an interpreter does. What is imported later, the
commands themselves among it, is imported by each process anew.

Tests of what an interpreter does before, or of what a command imports, must not use it.
"""

import atexit
import ctypes
import gc
import json
import multiprocessing.util
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
_MOST_DESCRIPTORS = 64
_MOST_BYTES = 2**18
# What the interpreter and its libraries read when they are loaded.
_READ_AT_THE_START = ("PYTHON", "LD_", "OMP", "GOMP", "KMP", "MKL", "OPENBLAS", "TORCH", "HDF5")


def _settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k.startswith(_READ_AT_THE_START)}


class WarmPopen(subprocess.Popen[str]):
    """`subprocess.Popen` of ``python -m module``, ``python -c code`` and ``python file``."""

    def _execute_child(self, args: Any, *others: Any) -> None:
        """Start the process; `Popen` has made the pipes, and waits for the process as for any."""
        assert args[0] == sys.executable
        cwd, environment = others[4:6]
        pipes = others[9:15]
        given = {number: pipes[each] for number, each in ((0, 0), (1, 3), (2, 5))}
        streams = {number: number if each == -1 else each for number, each in given.items()}
        self.pid = warm_pid(args[1:], streams, cwd, environment)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def warm_pid(
    words: Sequence[Any],
    descriptors: Mapping[int, int],
    directory: Any = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Start an interpreter with some arguments, and return its number.

    Args:
        words: What would follow ``python``.
        descriptors: The numbers of the new process's descriptors, and which of ours they are.
        directory: Where it starts; None is here.
        environment: Its environment; None is ours.
    """
    environment = dict(os.environ if environment is None else environment)
    channel = _server(os.getpid(), json.dumps(_settings(environment), sort_keys=True))
    request = {
        "words": [os.fspath(each) for each in words],
        "numbers": list(descriptors),
        "directory": os.path.abspath(directory or os.getcwd()),
        "environment": environment,
        "blocked": [int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    }
    adopt = ctypes.CDLL(None).prctl
    adopt(_ADOPT_ORPHANS, 1, 0, 0, 0)
    try:
        socket.send_fds(channel, [json.dumps(request).encode()], list(descriptors.values()))
        answer = channel.recv(100)
    finally:
        adopt(_ADOPT_ORPHANS, 0, 0, 0, 0)
    assert answer, "the server of warm interpreters has ended"
    return int(answer)


def run_warm(
    command: Sequence[str], *, seconds: float = 300, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command of `WarmPopen` to its end, and capture its output."""
    pipe = subprocess.PIPE
    with WarmPopen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, **options
    ) as process:
        try:
            output = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, *output)


class WarmInterpreter:
    """Runs commands to their end, each in a process of its own.

    Args:
        environment: What they have in it beside ours.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment or {}

    def run(self, words: list[str], directory: Path) -> tuple[int, str]:
        """Run what would follow ``python`` in a directory; return its exit code and its output."""
        environment = {**os.environ, **self._environment}
        done = run_warm([sys.executable, *words], cwd=directory, env=environment)
        return done.returncode, f"{done.stdout}\n{done.stderr}"


@cache
def _server(process: int, settings: str) -> socket.socket:
    """Start the server of a process; it ends with the process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * _MOST_BYTES)
    environment = {k: v for k, v in os.environ.items() if k not in _settings(os.environ)}
    server = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno())],
        env={**environment, **json.loads(settings)},
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
    )
    theirs.close()

    def close() -> None:
        ours.close()
        if os.getpid() == process:
            server.wait()

    atexit.register(close)
    return ours


@contextmanager
def warm_workers() -> Iterator[None]:
    """Let processes that multiprocessing spawns from this one be warm."""
    spawn = multiprocessing.util.spawnv_passfds

    def warm(path: bytes, words: Sequence[str | bytes], descriptors: Sequence[int]) -> int:
        given = [os.fsdecode(each) for each in words]
        at = given.index("-c")
        # The other process that it starts tracks resources, and imports little.
        if set(given[1:at]) - {"-B"} or "spawn_main" not in given[at + 1]:
            return spawn(path, words, descriptors)
        return warm_pid(given[at:], {number: number for number in (0, 1, 2, *descriptors)})

    multiprocessing.util.spawnv_passfds = warm
    try:
        yield
    finally:
        multiprocessing.util.spawnv_passfds = spawn


def _serve(channel: socket.socket) -> None:
    """Fork for each request; return, with a request done, in the new processes only."""
    kept = ExitStack()
    import torch

    import jobs.execution.execute
    import jobs.execution.workers.worker
    import jobs.machine.warm_up

    # The first derivative makes torch load a lot. Start no threads: forks do not inherit them.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    jobs.machine.warm_up.warm_up()
    torch.func.grad(torch.sin)(torch.ones(()))
    torch.set_num_threads(threads)
    from remembered_composition import compose_ahead, remembered_compositions

    kept.enter_context(remembered_compositions())
    python = "function=python"
    compose_ahead([], ["function=rosenbrock"], ["function=mlp"], [python], [python, "inputs=numpy"])
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    # Collections in a new process would copy the memory of all that is here.
    gc.collect()
    gc.freeze()
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, _MOST_BYTES, _MOST_DESCRIPTORS)
        if not data:
            os._exit(0)
        between = os.fork()
        if not between:
            _leave_an_orphan(channel, json.loads(data), descriptors)
        os.waitpid(between, 0)
        for each in descriptors:
            os.close(each)


def _leave_an_orphan(
    channel: socket.socket, request: dict[str, Any], descriptors: list[int]
) -> NoReturn:
    between = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == between:
        time.sleep(0.0005)
    channel.send(str(os.getpid()).encode())
    channel.close()
    _take_over(request, descriptors)
    _run(request["words"])


def _take_over(request: dict[str, Any], descriptors: list[int]) -> None:
    # Out of the way of the numbers that they get.
    moved = [_above(each) for each in descriptors]
    for each in descriptors:
        os.close(each)
    for number, each in zip(request["numbers"], moved, strict=True):
        os.dup2(each, number)
        os.close(each)
    # A shell makes its background processes ignore Ctrl-C, the tests perhaps among them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["directory"])
    time.tzset()


def _above(descriptor: int) -> int:
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 500)


def _run(words: list[str]) -> NoReturn:
    """Run what the words say as the interpreter would, and end the process."""
    sys.orig_argv = [sys.executable, *words]
    flag, what, *arguments = words if words[0] in ("-m", "-c") else ["", *words]
    sys.argv = [flag or what, *arguments]
    sys.path[0] = {"-m": os.getcwd(), "-c": ""}.get(flag, os.path.dirname(os.path.abspath(what)))
    code: Any = 0
    try:
        if flag == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        elif flag == "-c":
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), main.__dict__)
        else:
            runpy.run_path(what, run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    _end(code)


def _end(code: Any) -> NoReturn:
    """End as an interpreter does, but do not take modules and the tables of torch apart.

    The destructors of torch's libraries would take a seventh of a second of the processor.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            code = 120
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    ctypes.CDLL(None).fflush(None)
    # HDF5 ends with the files that are open, as it does when a program ends.
    if (hdf5 := sys.modules.get("h5py.h5")) is not None:
        ctypes.CDLL(hdf5.__file__).H5close()
    os._exit(int(code or 0) & 255)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        _serve(socket.socket(fileno=int(sys.argv[1])))
