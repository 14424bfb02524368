"""Progress bars: on a terminal's stderr, or below a notebook's cell; nothing elsewhere."""

# code-key: presents

import html
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from edgekd.values.progress import Progress, silent

QUIET_SECONDS = 1.0
"""Work shorter than this gets no bar."""


@contextmanager
def progress_bars(enabled: bool = True) -> Iterator[Progress]:
    """A `progress(what, done, total)` callable that draws one bar for each `what`."""
    if enabled and _in_notebook():
        yield _notebook_bar()
        return
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
        """Steps per second."""

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


def _in_notebook() -> bool:
    """Whether this process is a notebook's kernel, in which IPython is already imported."""
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


def _notebook_bar() -> Progress:
    """One bar below the cell for the current step, redrawn at most five times a second."""
    from IPython.display import HTML, display  # type: ignore[import-not-found, unused-ignore]

    shown = display(HTML(""), display_id=True)
    last, drawn = "", 0.0

    def progress(what: str, done: int, total: int) -> None:
        nonlocal last, drawn
        now = time.monotonic()
        if what == last and done < total and now - drawn < 0.2:
            return
        last, drawn = what, now
        text = f"{html.escape(what)} {done}/{total}"
        shown.update(HTML(f'<progress value="{done}" max="{total}"></progress> {text}'))

    return progress
