"""Workers as tasks of Ray: on the machines of a cluster, or on this one."""

import os
import warnings
from typing import Any

from edgekd.errors import InputError, ToolError, first_line
from edgekd.searching.request import Search
from edgekd.searching.worker import work


class RayWorkers:
    """Tasks by the numbers of their workers, each with its share of the cluster's cores.

    Takes the cluster that `RAY_ADDRESS` names or that was started on this machine, or else starts
    one here, which ends with the search.
    """

    def __init__(self, search: Search, place: str) -> None:
        self.search, self.place = search, place
        self._ray = _connected()
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        if len(alive) > 1 and search.options.storage is None:
            self._ray.shutdown()
            raise InputError(
                f"the cluster's {len(alive)} machines can't share the file of a default storage",
                where="--engine ray",
                hint="name one with --storage, such as journal:/shared/trials.log",
            )
        cores = [int(node["Resources"].get("CPU", 0)) for node in alive]
        most = max(cores, default=1)
        self.threads = max(1, min(most, sum(cores) // search.options.workers))
        self._running: dict[Any, int] = {}

    def start(self, number: int) -> None:
        """Start a worker."""
        options = {"num_cpus": self.threads, "max_retries": 0, "name": f"edgekd worker {number}"}
        environment = {"env_vars": {"OMP_NUM_THREADS": str(self.threads)}}
        remote = self._ray.remote(work).options(runtime_env=environment, **options)
        task = remote.remote(self.search, number, self.threads, self.place)
        self._running[task] = number

    def ended(self) -> dict[int, str]:
        """Wait for a worker to end; by its number why it did, empty if no trial was left."""
        done, _ = self._ray.wait(list(self._running), num_returns=1)
        reasons: dict[int, str] = {}
        for task in done:
            number = self._running.pop(task)
            try:
                self._ray.get(task)
                reasons[number] = ""
            except self._ray.exceptions.RayError as error:
                reasons[number] = first_line(error)
        return reasons

    def close(self) -> None:
        """End the tasks that still run, and the cluster if it was started here."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._ray.shutdown()


def _connected() -> Any:
    """Ray, connected to a cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import ray

        try:
            ray.init(
                include_dashboard=False,
                logging_level="ERROR",
                runtime_env={"worker_process_setup_hook": "edgekd.installed.quiet_libraries"},
            )
        except ConnectionError as error:
            raise ToolError(
                f"Ray's cluster can't be reached: {first_line(error)}",
                where="--engine ray",
                hint="is RAY_ADDRESS right? Without it the search runs on this machine",
            ) from None
    return ray
