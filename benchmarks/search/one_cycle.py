"""The training of the benchmarks' networks: AdamW with a one-cycle schedule."""

import torch
from torch import nn

from edgekd.data.samples import Data

BATCH = 64


def fitted(module: nn.Module, data: Data, rate: float, epochs: int) -> nn.Module:
    """The module after so many epochs of cross-entropy, ready for inference."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), rate)
    steps = epochs * (len(data.train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    x, y = data.train.x, data.train.y
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            loss = nn.functional.cross_entropy(module(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return module.eval()
