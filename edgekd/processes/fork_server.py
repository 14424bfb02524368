"""A process that imports a module once and forks for each of its jobs: `python -m
edgekd.processes.fork_server MODULE`.

`forked` starts it and talks to it in lines of JSON. A job comes on standard input; the answers, on
standard output, are the child's process id and then its exit status. The server ends when its
input does, and takes the child along. Only Linux has what it needs.
"""

import gc
import importlib
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

IDLE_SECONDS = 300.0
"""Without a job for so long, the server gives its memory back."""


def serve(module: str, jobs: int, answers: int) -> None:
    """Import `module` and what its `PRELOADED` names, then run its `main` in a child for each job,
    until the descriptor `jobs` reaches its end."""
    main = _imported(module)
    lines = os.fdopen(jobs, "rb", buffering=0)
    while select.select([jobs], [], [], IDLE_SECONDS)[0]:
        line = lines.readline()
        if not line:
            return
        child = os.fork()
        if child == 0:
            os.close(jobs)
            os.close(answers)
            _run(main, json.loads(line))
        _answer(answers, child=child)
        _answer(answers, status=_ended(child, jobs))


def _imported(module: str) -> Callable[..., None]:
    """The module's `main`. What is imported here lives as long as the server, so it is kept from
    the garbage collector, which would go through it again and again."""
    gc.disable()
    loaded = importlib.import_module(module)
    for name in loaded.PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()
    main: Callable[..., None] = loaded.main
    return main


def _run(main: Callable[..., None], job: dict[str, Any]) -> None:
    """What the child does; it never returns."""
    status = 1
    try:
        os.setsid()  # a group of its own, so that what it starts can be ended with it
        for number, path in enumerate((os.devnull, job["stdout"], job["stderr"])):
            os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY), number)
        os.environ.clear()
        os.environ.update(job["environment"])
        os.chdir(job["folder"])
        main(*job["arguments"])
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)


def _ended(child: int, jobs: int) -> int:
    """The child's exit status, or the negative number of the signal that ended it. If `jobs`
    reaches its end first, the child is ended."""
    process = os.pidfd_open(child)
    try:
        if process not in select.select([process, jobs], [], [])[0]:
            os.killpg(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(process)


def _answer(answers: int, **values: int) -> None:
    os.write(answers, json.dumps(values).encode() + b"\n")


if __name__ == "__main__":
    streams = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)  # what libraries print as they are imported is no answer
    serve(sys.argv[1], *streams)
