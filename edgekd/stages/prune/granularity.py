"""The unit of pruning: the values that a recipe may use, and their meaning."""

import re
from typing import Literal

Removed = Literal["channels", "heads", "neurons"]
"""Units that are removed from the network, through the dependency graph."""

REMOVED: tuple[Removed, ...] = ("channels", "heads", "neurons")

PATTERN = r"^(channels|heads|neurons|blocks|weights|\d+:\d+|\d+x\d+)$"


def removed(granularity: str) -> Removed | None:
    """The kind of channel groups that are removed; None for blocks and for zeros."""
    return next((each for each in REMOVED if each == granularity), None)


def pattern_of(granularity: str) -> tuple[int, int] | None:
    """(N, M) of "N:M": of every M adjacent weights N stay, 0 < N < M. None for anything else."""
    return _pair(granularity, ":")


def block_of(granularity: str) -> tuple[int, int] | None:
    """(rows, columns) of "RxC": blocks of that many outputs by that many inputs are zeroed."""
    return _pair(granularity, "x")


def _pair(granularity: str, sign: str) -> tuple[int, int] | None:
    found = re.fullmatch(rf"(\d+){sign}(\d+)", granularity)
    return (int(found[1]), int(found[2])) if found else None
