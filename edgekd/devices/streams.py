"""Several copies of one model that run side by side, each in a process of its own."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from edgekd.devices import Streamed
from edgekd.devices.replies import Loaded, StreamCounts, Warmed, checked
from edgekd.errors import ToolError

FULL = {"windows": 5, "window_s": 1.0}
QUICK = {"windows": 5, "window_s": 0.2}
"""The windows in which runs are counted, and those of a short measurement."""

RUNS_PER_WINDOW = 4
"""A window is at least as long as so many runs of one stream."""

LEAD_S = 1.0
"""The time between a request and the moment at which all streams start to count."""

Ask = Callable[[dict[str, Any]], Any]
"""Sends a request to one agent and returns its reply."""


def streamed(
    asks: Sequence[Ask], load: dict[str, Any], protocol: dict[str, Any], quick: bool, place: str
) -> Streamed:
    """Load the model into every agent, warm all of them up at the same time, and count their runs
    in the same windows of their common clock. Raises `ToolError` if an agent fails."""
    with ThreadPoolExecutor(len(asks)) as pool:

        def together(request: dict[str, Any]) -> list[Any]:
            return list(pool.map(lambda ask: ask(request), asks))

        loaded = [checked(Loaded, each, place) for each in together(load)]
        models = {each.model for each in loaded}
        if len(models) != 1:
            raise ToolError("the agents number their models differently", where=place)
        number = models.pop()
        warm = {"command": "warm", "model": number, "protocol": protocol}
        warmed = [checked(Warmed, each, place) for each in together(warm)]
        slowest = max(each.run_ns for each in warmed) / 1e9
        windows = QUICK if quick else FULL
        window_s = max(windows["window_s"], RUNS_PER_WINDOW * slowest)
        lead_ns = int(1e9 * max(LEAD_S, 2 * slowest))
        counting = {
            "command": "stream",
            "model": number,
            "start_ns": max(each.now_ns for each in warmed) + lead_ns,
            "windows": int(windows["windows"]),
            "window_s": window_s,
        }
        counted = [checked(StreamCounts, each, place) for each in together(counting)]
    if any(len(each.counts) != counting["windows"] for each in counted):
        raise ToolError("an agent sent counts of another number of windows", where=place)
    shape = loaded[0].inputs[0].shape if loaded[0].inputs else ()
    windows_of_all = zip(*(each.counts for each in counted), strict=True)
    settled = "yes" if all(each.settled for each in warmed) else "no"
    facts = {**loaded[0].notes, "runtime": loaded[0].version, "warm_up_settled": settled}
    return Streamed(
        runs_per_second=tuple(sum(counts) / window_s for counts in windows_of_all),
        samples_per_run=max(shape[0], 1) if shape else 1,
        window_s=window_s,
        conditions={**counted[0].before, **facts},
        invalid=next((each.invalid for each in counted if each.invalid), ""),
    )
