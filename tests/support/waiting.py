"""Waiting for what happens elsewhere: in another process, on a board."""

import time
from collections.abc import Callable


def until(holds: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Wait for something, or fail."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.02)
