"""Contrastive representation distillation against a memory of the other samples."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss, Shape, above_zero
from edgekd.training.losses._shapes import Layout, channels_first, widths

DENSE = 8
"""If the memory has at most this many times the requested rows, products with all rows cost less
than gathering the requested ones, because each row is read once for the whole batch."""


@LOSSES.register(paper="https://arxiv.org/abs/1910.10699")
class CRD(FeatureLoss):
    """-log h(t, s+) - sum over N negatives of log(1 - h(t, s-)), on both sides, over the batch.

    Tian et al. 2020, equations 14 to 19: h = e / (e + N / M), e = exp(g_t . g_s / T) / Z, g a
    learned linear layer to `width`, of norm one, M the training samples. Both sides' embeddings
    of every sample are kept (`momentum`); the `negatives` are drawn from all samples but the own
    one. Z is set in the first step. Maps are averaged over their positions. Never zero.
    """

    needs = ("index",)
    accepts_outputs = True

    def __init__(
        self,
        negatives: int = 1024,
        temperature: float = 0.07,
        width: int = 128,
        momentum: float = 0.5,
        layout: Layout = "auto",
    ) -> None:
        above_zero(negatives=negatives, temperature=temperature, width=width)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be at least 0 and below 1, found {momentum}")
        super().__init__()
        self.negatives, self.temperature = negatives, temperature
        self.width, self.momentum = width, momentum
        self.layout: Layout = layout
        self.heads = nn.ModuleList()
        self.banks = nn.ModuleList()

    def prepare(self, student: Shape, teacher: Shape) -> None:
        sizes = widths(student, teacher, self.layout)
        self.heads = nn.ModuleList([nn.Linear(size, self.width) for size in sizes])

    def remember(self, samples: int) -> None:
        if samples < 2:
            raise ValueError("needs at least two training samples")
        self.banks = nn.ModuleList([_Bank(samples, self.width) for _ in self.heads])

    def forward(self, student: Tensor, teacher: Tensor, *, index: Tensor) -> Tensor:
        both = (self._embedded(0, student), self._embedded(1, teacher))
        count = len(self.banks[0].rows)  # type: ignore[arg-type]
        index = index.to(student.device)
        shape = (len(index), min(self.negatives, count - 1))
        others = index.unsqueeze(1) + torch.randint(1, count, shape, device=index.device)
        rows = torch.cat([index.unsqueeze(1), others % count], dim=1)
        mine = self.banks[1](both[0], rows, self.temperature)
        theirs = self.banks[0](both[1], rows, self.temperature)
        for bank, embedded in zip(self.banks, both, strict=True):
            bank.update(index, embedded, self.momentum)  # type: ignore[operator]
        total: Tensor = mine + theirs
        return total

    def _embedded(self, side: int, features: Tensor) -> Tensor:
        features = channels_first(features, self.layout)
        pooled = features.flatten(2).mean(2) if features.ndim > 2 else features
        return F.normalize(self.heads[side](pooled), dim=1)


class _Bank(nn.Module):
    """One side's embedding (samples, width) of every training sample; `scale` is log Z, NaN until
    it is set."""

    rows: Tensor
    scale: Tensor

    def __init__(self, samples: int, width: int) -> None:
        super().__init__()
        spread = 1 / math.sqrt(width / 3)
        self.register_buffer("rows", (2 * torch.rand(samples, width) - 1) * spread)
        self.register_buffer("scale", torch.tensor(math.nan))

    def forward(self, embedded: Tensor, rows: Tensor, temperature: float) -> Tensor:
        """The other side's embeddings (B, width) against these at (B, 1 + negatives), the first of
        which belongs to the sample itself."""
        count, negatives = len(self.rows), rows.shape[1] - 1
        if count <= DENSE * rows.shape[1]:
            all_rows = self.rows.clone()  # `update` changes them before the backward pass
            products = (embedded @ all_rows.mT).gather(1, rows)
        else:
            products = (self.rows[rows] @ embedded.unsqueeze(2)).squeeze(2)
        scores = products / temperature
        if self.scale.isnan():
            mean = scores.detach().logsumexp((0, 1)) - math.log(scores.numel())
            self.scale.copy_(mean + math.log(count))
        # e / (e + N / M) is a sigmoid in logarithms, where nothing overflows
        margin = scores - self.scale - math.log(negatives / count)
        return -(F.logsigmoid(margin[:, 0]) + F.logsigmoid(-margin[:, 1:]).sum(1)).mean()

    def update(self, index: Tensor, embedded: Tensor, momentum: float) -> None:
        """Move the samples' rows towards their new embeddings."""
        moved = momentum * self.rows[index] + (1 - momentum) * embedded.detach()
        self.rows[index] = F.normalize(moved, dim=1)
