"""What one worker of a search does: trials, until none is left to run."""

import ctypes
import signal
import sys
from contextlib import suppress

from edgekd.errors import EdgekdError
from edgekd.installed import quiet_libraries, switch_telemetry_off
from edgekd.searching.loop import Loop
from edgekd.searching.request import Search
from edgekd.searching.study import Study
from edgekd.values.progress import silent

PR_SET_PDEATHSIG = 1
"""Linux, prctl(2): the signal that a process gets when its parent ends."""


def work(search: Search, number: int, threads: int, place: str) -> None:
    """Run trials on `threads` cores as the worker `number` of the search that began at `place`. Its
    errors are raised again by the process that began it, which finds the same failed trials."""
    switch_telemetry_off()
    quiet_libraries()
    import torch

    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that began it ends it
    torch.set_num_threads(threads)
    study = Study(search, number, place)
    with suppress(EdgekdError):
        Loop(search, study, _print, lambda trials: None).run(silent)


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _end_with_parent() -> None:
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
