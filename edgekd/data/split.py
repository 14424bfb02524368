"""Holding samples back: stratified, deterministic and independent of any seed."""

import torch
from torch import Tensor


def held_out(y: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Positions to keep and positions held back, both ascending, for labels (N,).

    Each class gives round(share x its samples), at least one if it has two or more, spread
    evenly over its samples in order, so that the choice needs no random numbers and is the same
    on every machine.
    """
    mask = torch.zeros(len(y), dtype=torch.bool)
    for label in torch.unique(y):
        members = (y == label).nonzero().flatten()
        count = min(max(round(len(members) * share), 1), len(members) - 1)
        if count:
            steps = (torch.arange(count, dtype=torch.float64) + 0.5) * len(members) / count
            mask[members[steps.long()]] = True
    return (~mask).nonzero().flatten(), mask.nonzero().flatten()


def balanced(y: Tensor, count: int) -> Tensor:
    """Ascending positions of the first `count` samples with classes as equal as can be.

    The first of each class come first, then the second of each, and so on.
    """
    turn = torch.zeros(len(y), dtype=torch.long)
    for label in torch.unique(y):
        members = (y == label).nonzero().flatten()
        turn[members] = torch.arange(len(members))
    order = torch.argsort(turn, stable=True)
    return order[:count].sort().values
