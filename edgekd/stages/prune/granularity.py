"""What is removed at once: the words that a recipe may use, and what they mean."""

import re
from typing import Literal

Removed = Literal["channels", "heads", "neurons"]
"""What goes out of the network for good, through the dependency graph."""

REMOVED: tuple[Removed, ...] = ("channels", "heads", "neurons")

PATTERN = r"^(channels|heads|neurons|blocks|weights|\d+:\d+|\d+x\d+)$"


def removed(granularity: str) -> Removed | None:
    """The kind of channel groups that go, None for blocks and for zeros."""
    return next((each for each in REMOVED if each == granularity), None)


def pattern_of(granularity: str) -> tuple[int, int] | None:
    """(N, M) of "N:M": of every M neighbours N stay. None for anything else; 0 < N < M."""
    return _pair(granularity, ":")


def block_of(granularity: str) -> tuple[int, int] | None:
    """(rows, columns) of "RxC": that many outputs by that many inputs go together."""
    return _pair(granularity, "x")


def _pair(granularity: str, sign: str) -> tuple[int, int] | None:
    found = re.fullmatch(rf"(\d+){sign}(\d+)", granularity)
    return (int(found[1]), int(found[2])) if found else None
