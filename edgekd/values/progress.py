"""The callback by which long-running work reports its progress."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as progress(what, done, total); the command line draws a bar from it."""


def silent(what: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""
