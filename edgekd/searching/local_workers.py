"""Workers as processes of this machine, each with its share of the cores."""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from edgekd.searching.request import Search
from edgekd.searching.worker import work


class LocalWorkers:
    """Processes by the numbers of their workers; `threads` is how many cores each one uses."""

    def __init__(self, search: Search, place: str) -> None:
        self.search, self.place = search, place
        self.threads = max(1, (os.cpu_count() or 1) // search.options.workers)
        self._context = multiprocessing.get_context("spawn")
        self._running: dict[int, BaseProcess] = {}

    def start(self, number: int) -> None:
        """Start a worker."""
        arguments = (self.search, number, self.threads, self.place)
        process = self._context.Process(target=work, args=arguments, daemon=True)
        with _threads(self.threads):
            process.start()
        self._running[number] = process

    def ended(self) -> dict[int, str]:
        """Wait for a worker to end; by its number why it did, empty if no trial was left."""
        wait([process.sentinel for process in self._running.values()])
        reasons: dict[int, str] = {}
        for number, process in list(self._running.items()):
            if not process.is_alive():
                process.join()
                del self._running[number]
                reasons[number] = str(process.exitcode) if process.exitcode else ""
        return reasons

    def close(self) -> None:
        """End the processes that still run, after an error or Ctrl-C."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.join()


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
