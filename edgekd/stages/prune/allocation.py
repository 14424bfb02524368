"""How many units each layer keeps when a share of all units is pruned. A pool holds the units that
compete within one layer: channel groups, heads or single weights, each with a score. Sizes refer to
the original network, so that several steps add up to one amount.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Drops = Mapping[str, Sequence[tuple[float, float]]]
"""For each pool the measured (share removed, accuracy lost), by ascending share."""


@dataclass(frozen=True, eq=False)
class Pool:
    """One layer's units: `scores` (units,) of those left; `first` is how many there were.

    What is kept is a multiple of `step`, or everything. With `least` 0 all may go.
    """

    name: str
    scores: Tensor
    first: int
    step: int = 1
    least: int = 1

    @property
    def left(self) -> int:
        return len(self.scores)

    @property
    def floor(self) -> int:
        """The fewest units that may stay: one step, or all if there are no more."""
        return min(self.step, self.left) if self.least else 0

    def rounded(self, kept: float) -> int:
        """The allowed count nearest to `kept`, the larger one in a tie."""
        nearest = math.floor(kept / self.step + 0.5) * self.step
        if abs(kept - self.left) <= abs(kept - nearest):
            return self.left
        return max(self.floor, min(nearest, self.left))


def uniform(pools: Sequence[Pool], amount: float) -> dict[str, int]:
    """Every layer loses the same share."""
    return {pool.name: pool.rounded(pool.first * (1 - amount)) for pool in pools}


def global_(pools: Sequence[Pool], amount: float, comparable: bool = False) -> dict[str, int]:
    """All units compete by their scores, divided by their layer's mean unless they are
    `comparable` without that."""
    goal = sum(pool.first for pool in pools) * (1 - amount)
    excess = round(sum(pool.left for pool in pools) - goal)
    if excess <= 0:
        return {pool.name: pool.left for pool in pools}
    means = [pool.scores.abs().mean().clamp_min(1e-30) for pool in pools]
    normed = [
        pool.scores / (1.0 if comparable else mean) for pool, mean in zip(pools, means, strict=True)
    ]
    # Each layer's best units up to its floor are out of the contest.
    contest, owners = [], []
    for number, (pool, scores) in enumerate(zip(pools, normed, strict=True)):
        open_ = scores.sort().values[: pool.left - pool.floor]
        contest.append(open_)
        owners.append(torch.full((len(open_),), number))
    order = torch.cat(contest).argsort(stable=True)[:excess]
    lost = torch.bincount(torch.cat(owners)[order], minlength=len(pools)).tolist()
    return {
        pool.name: pool.rounded(pool.left - count) for pool, count in zip(pools, lost, strict=True)
    }


def by_sensitivity(pools: Sequence[Pool], amount: float, drops: Drops) -> dict[str, int]:
    """Every layer loses the share that costs the same accuracy, which is found by bisection.
    Between measured shares the loss is interpolated linearly and made non-decreasing.
    """
    goal = sum(pool.first for pool in pools) * (1 - amount)
    worst = max((drop for measured in drops.values() for _, drop in measured), default=0.0)
    low, high = 0.0, max(worst, 1e-6)
    for _ in range(30):
        middle = (low + high) / 2
        kept = sum(pool.left * (1 - tolerated(drops[pool.name], middle)) for pool in pools)
        low, high = (middle, high) if kept > goal else (low, middle)
    shares = {pool.name: tolerated(drops[pool.name], high) for pool in pools}
    # Where the most that was measured is not enough, the rest goes evenly; where accuracies that
    # are equal let the share jump past the goal, every layer gets back the same part of its own.
    left = sum(pool.left for pool in pools)
    kept = sum(pool.left * (1 - shares[pool.name]) for pool in pools)
    if kept < goal:
        back = (left - goal) / (left - kept)
        shares = {name: share * back for name, share in shares.items()}
    more = min(1.0, goal / kept) if kept else 1.0
    return {pool.name: pool.rounded(pool.left * (1 - shares[pool.name]) * more) for pool in pools}


def tolerated(measured: Sequence[tuple[float, float]], drop: float) -> float:
    """The largest share that loses no more than `drop`, by interpolation."""
    share, lost = 0.0, 0.0
    for next_share, next_lost in measured:
        next_lost = max(next_lost, lost)
        if next_lost > drop:
            return share + (next_share - share) * (drop - lost) / (next_lost - lost)
        share, lost = next_share, next_lost
    return share


def best(pool: Pool, kept: int) -> list[int]:
    """The positions of the units to keep, ascending; of equal scores the earlier ones stay."""
    order = pool.scores.argsort(descending=True, stable=True)[:kept]
    return sorted(order.tolist())
