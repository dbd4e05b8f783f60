"""An interpreter that has imported what all commands import, and forks for each command.

As a script it is a server: it reads one request per line, as JSON with `words`, `directory`, `out`
and `err`, and prints the exit code. Importing torch for each of a hundred commands would take
minutes.
"""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any


class WarmInterpreter:
    """Runs ``python -m module ...`` and ``python -c code``, each in a separate process."""

    def __init__(self, directory: Path, environment: dict[str, str] | None = None) -> None:
        self._files = directory / "out", directory / "err"
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def run(self, words: list[str], directory: Path) -> tuple[int, str]:
        """Run a command in a directory, and return its exit code and its output."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        out, err = map(str, self._files)
        request = {"words": words, "directory": str(directory), "out": out, "err": err}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        return code, "\n".join(file.read_text() for file in self._files)

    def close(self) -> None:
        """End the server."""
        self._server.communicate()


def serve() -> None:
    import torch

    import jobs.execution.execute
    import jobs.machine.warm_up

    # The first derivative makes torch load a lot. Start no threads: forks do not inherit them.
    torch.set_num_threads(1)
    jobs.machine.warm_up.warm_up()
    torch.func.grad(torch.sin)(torch.ones(()))
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if not process:
            answer(request)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def answer(request: dict[str, Any]) -> None:
    """Run the command in this process, and exit with its code."""
    os.chdir(request["directory"])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    flag, what, *arguments = request["words"]
    sys.path[0] = ""
    code: Any = 0
    try:
        sys.argv = [what if flag == "-m" else flag, *arguments]
        if flag == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as exit:
        code = exit.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    serve()
