"""Several processes that run trials side by side; the one that started them waits for their end.

Each has its share of the cores. They meet in the study's storage and in the store of stages, where
one trains what several need, and a device measures for one at a time (`edgekd.devices.lease`).
"""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from edgekd.errors import EdgekdError
from edgekd.searching.loop import Loop
from edgekd.searching.outcome import Trial
from edgekd.searching.request import Search
from edgekd.searching.study import Study
from edgekd.values.progress import silent

MOST_STARTS = 5
"""How often the processes of a search are started again in all, after one ended by a signal."""

PR_SET_PDEATHSIG = 1
"""Linux, prctl(2): the signal that a process gets when its parent ends."""


Keep = Callable[[Sequence[Trial]], None]


def run_workers(search: Search, study: Study, say: Callable[[str], None], keep: Keep) -> None:
    """Run trials in `search.options.workers` processes until none is left to run. A worker that
    ends by a signal costs its trial's last epoch: the trial is proposed again."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // search.options.workers)
    running: dict[int, BaseProcess] = {}
    starts = 0

    def start(number: int) -> None:
        process = context.Process(target=_work, args=(search, number, threads), daemon=True)
        process.start()
        running[number] = process

    with _threads(threads), _ended_at_last(running):
        for number in range(1, search.options.workers + 1):
            start(number)
        while running:
            wait([process.sentinel for process in running.values()])
            for number, process in list(running.items()):
                if process.is_alive():
                    continue
                process.join()
                del running[number]
                keep(study.trials())
                if process.exitcode:
                    study.retry_unfinished(number)
                    starts += 1
                    say(f"worker {number} ended with {process.exitcode}")
                    if starts <= MOST_STARTS:
                        start(number)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """The number of threads that processes started in the block begin with."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


@contextmanager
def _ended_at_last(running: dict[int, BaseProcess]) -> Iterator[None]:
    """End the processes that still run when the block is left by an error or Ctrl-C."""
    try:
        yield
    finally:
        for process in running.values():
            process.kill()
        for process in running.values():
            process.join()


def _work(search: Search, number: int, threads: int) -> None:
    """One worker's loop. Its errors are raised again by the process that started it, which finds
    the same failed trials."""
    import torch

    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    torch.set_num_threads(threads)
    study = Study(search, number)
    with suppress(EdgekdError):
        Loop(search, study, _print, lambda trials: None).run(silent)


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _end_with_parent() -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
