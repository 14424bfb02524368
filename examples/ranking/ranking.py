"""What is the user's own in this example: a log of clicks, a network that ranks, and its loss."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

TABLES = {"user": 400, "item": 600, "category": 12, "hour": 24}
"""The categories of each id, in the order of the ids."""
DENSE = ("age", "price", "discount", "rating", "visits")


def clicks(train: int = 24_000, test: int = 4_000, seed: int = 0) -> dict:
    """Who was shown what and clicked (1) or not (0). It is drawn, not logged: a click's log-odds
    are the product of a user's and an item's tastes, a part for each category and hour, and a
    linear part of five numbers. The best possible AUROC on it is 0.88."""
    random = np.random.default_rng(seed)
    tastes = {name: random.normal(size=(TABLES[name], 4)) for name in ("user", "item")}
    shares = {name: random.normal(size=TABLES[name]) * 0.7 for name in ("category", "hour")}
    weights = random.normal(size=len(DENSE)) * 0.6
    category = random.integers(0, TABLES["category"], TABLES["item"])  # of each item

    def part(count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        user, item = (random.integers(0, TABLES[name], count) for name in ("user", "item"))
        hour = random.integers(0, TABLES["hour"], count)
        dense = random.normal(size=(count, len(DENSE))).astype(np.float32)
        taste = 0.7 * (tastes["user"][user] * tastes["item"][item]).sum(1)
        odds = taste + shares["category"][category[item]] + shares["hour"][hour] + dense @ weights
        clicked = random.random(count) < 1 / (1 + np.exp(1 - odds))
        ids = np.stack([user, item, category[item], hour], 1)
        return {"dense": dense, "ids": ids}, clicked.astype(np.int64)[:, None]

    return {"train": part(train), "test": part(test)}


class DLRM(nn.Module):
    """Naumov et al. 2019: an embedding for each id, a perceptron over the numbers, the products of
    each two of these vectors, and a perceptron over all of it."""

    def __init__(self, width: int = 16, hidden: int = 64) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size in TABLES.values())
        for table in self.tables:
            nn.init.normal_(table.weight, std=width**-0.5)
        self.bottom = nn.Sequential(nn.Linear(len(DENSE), width), nn.ReLU())
        count = len(TABLES) + 1
        self.register_buffer("pairs", torch.triu_indices(count, count, 1), persistent=False)
        inputs = width + count * (count - 1) // 2
        self.top = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        numbers = self.bottom(dense)
        vectors = [table(ids[:, place]) for place, table in enumerate(self.tables)]
        stacked = torch.stack([numbers, *vectors], 1)
        products = torch.bmm(stacked, stacked.transpose(1, 2))
        interactions = products[:, self.pairs[0], self.pairs[1]]
        return self.top(torch.cat([numbers, interactions], 1))


def loss(outputs: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy of the log-odds (B, 1) of a click."""
    return F.binary_cross_entropy_with_logits(outputs, y.float())
