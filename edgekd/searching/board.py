"""A board that is gone while a search runs: the search waits for it, and ends if it stays away."""

import time
from collections.abc import Callable

from edgekd.errors import ToolError
from edgekd.run.plan.checks import check_device
from edgekd.searching.outcome import Trial
from edgekd.searching.request import Search

WAIT_SECONDS = 600.0
PAUSE_SECONDS = 10.0

MOST_RETURNS = 3
"""How often a trial is run again because its board went away; after that it counts as failed."""


def lost_board(search: Search, trial: Trial) -> bool:
    """Whether a trial failed because the connection to its board did."""
    device, where = search.request.device, trial.where
    return (
        trial.state == "failed"
        and trial.exit_code == ToolError.exit_code
        and device is not None
        and "://" in where
        and device.startswith(where)
    )


def wait_for_board(search: Search, say: Callable[[str], None]) -> None:
    """Return once the board responds. Raises `ToolError` if it does not for ten minutes."""
    end = time.monotonic() + WAIT_SECONDS
    say(f"{search.request.device} is gone: waiting for it, {WAIT_SECONDS / 60:.0f} minutes at most")
    while True:
        try:
            check_device(search.request)
        except ToolError as error:
            if time.monotonic() >= end:
                raise ToolError(
                    f"the board has been gone for {WAIT_SECONDS / 60:.0f} minutes: {error.message}",
                    where=str(search.request.device),
                    hint="finished trials are kept: run the same command again once it is back",
                ) from None
            time.sleep(PAUSE_SECONDS)
        else:
            return
