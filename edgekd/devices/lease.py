"""A device measures for one process at a time: the others wait for its lease."""

# code-key: measures

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgekd.errors import ToolError
from edgekd.store import disk_errors, locked

LONGEST_SECONDS = 3600.0
PAUSE_SECONDS = 0.2


@contextmanager
def leased(device: str, cache: Path, longest: float = LONGEST_SECONDS) -> Iterator[None]:
    """Hold the lease of a device, by its name, among all processes that share the cache folder.

    A process that is killed holds none. Raises `ToolError` if others hold it for too long.
    """
    path = cache / "leases" / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', device)}.lock"
    end = time.monotonic() + longest
    with ExitStack() as stack:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                stack.enter_context(locked(path))
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise ToolError(
                        f"another process has been measuring there for {longest / 60:.0f} minutes",
                        where=f"device {device}",
                        hint="wait until it ends, and run the same command again to continue",
                    ) from None
                time.sleep(PAUSE_SECONDS)
        yield
