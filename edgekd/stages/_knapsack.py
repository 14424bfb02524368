"""The multiple-choice knapsack: one option for each item, at the least damage within a limit."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

SECONDS = 20.0
"""The time limit for proving a choice to be the best; after it the best one found counts."""

GAP = 1e-4
"""A choice is good enough if no other has a damage that is smaller by this share."""


@contextmanager
def _beside_results() -> Iterator[None]:
    """Send what HiGHS prints past Python's own streams to stderr: stdout is for results."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def knapsack(
    damages: Sequence[Sequence[float]], costs: Sequence[Sequence[float]], limit: float
) -> list[int] | None:
    """The position of each item's option with the least sum of damages at a sum of costs of at most
    `limit`; None if there is none. An integer program, solved by HiGHS (Huangfu and Hall 2018)."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    if not damages:
        return []
    counts = [len(options) for options in damages]
    damage, cost = np.concatenate(damages), np.concatenate(costs)
    owners = np.repeat(np.arange(len(counts)), counts)
    one_each = (owners == np.arange(len(counts))[:, None]).astype(float)
    scale = max(float(np.abs(cost).max()), 1e-300)
    with _beside_results():
        solved = milp(
            damage / max(float(np.abs(damage).max()), 1e-300),
            integrality=np.ones(len(damage)),
            bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(one_each, 1, 1),
                LinearConstraint(cost[None] / scale, -np.inf, limit / scale),
            ],
            options={"time_limit": SECONDS, "mip_rel_gap": GAP},
        )
    if solved.x is None:
        return None
    starts = np.cumsum([0, *counts[:-1]])
    return [
        int(np.argmax(solved.x[start : start + count]))
        for start, count in zip(starts, counts, strict=True)
    ]
