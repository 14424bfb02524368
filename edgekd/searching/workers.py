"""Several workers that run trials side by side; the process that started them waits for their end.

They meet in the study's storage and in the store of stages, where one trains what several need,
and a device measures for one at a time (`edgekd.devices.lease`).
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Protocol

from edgekd.searching.outcome import Trial
from edgekd.searching.request import Search
from edgekd.searching.study import Study

MOST_STARTS = 5
"""How often the workers of a search are started again in all, after one was killed."""

Keep = Callable[[Sequence[Trial]], None]


class Workers(Protocol):
    """What starts workers and waits for them."""

    def start(self, number: int) -> None:
        """Start a worker."""

    def ended(self) -> dict[int, str]:
        """Wait for a worker to end; by its number why it did, empty if no trial was left."""

    def close(self) -> None:
        """End the workers that still run."""


def run_workers(search: Search, study: Study, say: Callable[[str], None], keep: Keep) -> None:
    """Run trials in `search.options.workers` workers until none is left to run. A worker that is
    killed costs its trial's last epoch: the trial is proposed again."""
    running = set(range(1, search.options.workers + 1))
    starts = 0
    with closing(_workers(search, study.place_here)) as workers:
        for number in sorted(running):
            workers.start(number)
        while running:
            for number, reason in workers.ended().items():
                running.remove(number)
                keep(study.trials())
                if not reason:
                    continue
                study.retry_unfinished(number)
                starts += 1
                say(f"worker {number} ended with {reason}")
                if starts <= MOST_STARTS:
                    workers.start(number)
                    running.add(number)


def _workers(search: Search, place: str) -> Workers:
    if search.options.engine == "ray":
        from edgekd.searching.ray_workers import RayWorkers

        return RayWorkers(search, place)
    from edgekd.searching.local_workers import LocalWorkers

    return LocalWorkers(search, place)
