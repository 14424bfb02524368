"""Progress on stderr: a bar with rate and time left on a terminal, nothing elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edgekd.values.progress import Progress, silent

QUIET_SECONDS = 1.0
"""Work that ends sooner than this gets no bar."""


@contextmanager
def progress_bars(enabled: bool = True) -> Iterator[Progress]:
    """A `progress(what, done, total)` callable that draws one bar for each `what`."""
    if not (enabled and sys.stderr.isatty()):
        yield silent
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import (
        Progress as Bars,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Steps a second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "", style="dim")

    with Bars(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        tasks: dict[str, tuple[float, int | None]] = {}

        def progress(what: str, done: int, total: int) -> None:
            started, task = tasks.get(what, (time.monotonic(), None))
            if task is None and time.monotonic() - started >= QUIET_SECONDS:
                task = int(bars.add_task(what, total=total))
            tasks[what] = (started, task)
            if task is not None:
                bars.update(task, completed=done, total=total, visible=done < total)  # type: ignore[arg-type]

        yield progress
