"""Embeddings of sentences, images or sounds, whose cosine says how alike two of them are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from edgekd.data.tasks import NO_LABEL, Task, shape_fault
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import TASKS


@TASKS.register(paper="https://arxiv.org/abs/1908.10084")
@dataclass(frozen=True)
class Embedding(Task):
    """Embeddings (B, D), judged by pairs: targets (N, 2) are the number of the pair that a sample
    belongs to and how alike the pair is, from 0 to `most`; -1, -1 for a sample without a pair.

    The metric is Spearman's correlation of the pairs' cosines with how alike they are, one number
    for all samples; two networks agree by the cosine of their embeddings. Training samples need no
    pairs; those held back for validation are whole pairs. The loss of the targets is the squared
    error of the cosine of the pairs that come in one batch.
    """

    most: float = 1.0
    metric: ClassVar[str] = "Spearman"
    integer: ClassVar[bool] = False
    judges_whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.most <= 0:
            raise ValueError(f"most must be above 0, found {self.most}")

    def label_loss(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """The mean over the pairs in the batch of (cosine - likeness / most) squared; 0 without."""
        first, second = pairs_of(y)
        if not len(first):
            return outputs.sum() * 0.0
        return F.mse_loss(_cosines(outputs, first, second), y[first, 1] / self.most)

    def judged(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Spearman's correlation over all pairs."""
        first, second = pairs_of(y)
        return torch.tensor(_correlation(_cosines(outputs, first, second), y[first, 1]))

    def redrawn(self, outputs: Tensor, y: Tensor, draws: Sequence[Tensor]) -> list[float]:
        """The same for pairs drawn with replacement: those whose first sample is drawn."""
        first, second = pairs_of(y)
        cosines, alike = _cosines(outputs, first, second), y[first, 1]
        place = torch.full((len(y),), NO_LABEL)
        place[first] = torch.arange(len(first))
        drawn = (place[draw][place[draw] != NO_LABEL] for draw in draws)
        return [_correlation(cosines[pairs], alike[pairs]) for pairs in drawn]

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """(B,) 1 - |cosine - likeness / most|, not below 0; 1 for a sample without its partner."""
        first, second = pairs_of(y)
        away = (_cosines(outputs, first, second) - y[first, 1] / self.most).abs().double()
        scores = torch.ones(len(y), dtype=torch.float64)
        scores[first] = scores[second] = (1 - away).clamp(min=0)
        return scores

    def decode(self, outputs: Tensor) -> Tensor:
        """The embeddings themselves."""
        return outputs

    def agreement(self, outputs: Tensor, others: Tensor) -> Tensor:
        """(B,) the cosine between two networks' embeddings, at least 0; for embeddings of other
        widths the correlation of their cosines with each of the other samples."""
        if outputs.shape == others.shape:
            return F.cosine_similarity(outputs.double(), others.double(), dim=1).clamp(0, 1)
        mine, theirs = (_centred(each.double()) for each in (outputs, others))
        return F.cosine_similarity(mine, theirs, dim=1).clamp(0, 1)

    def strata(self, y: Tensor) -> Tensor:
        """(N,) 0 for the first sample of each pair; the others are not drawn by themselves."""
        groups = torch.full((len(y),), NO_LABEL)
        groups[pairs_of(y)[0]] = 0
        return groups

    def with_partners(self, y: Tensor, chosen: Tensor) -> Tensor:
        """Both samples of each pair of which one is chosen."""
        numbers = y[chosen, 0]
        return torch.isin(y[:, 0], numbers[numbers != NO_LABEL]).nonzero().flatten()

    def judging_faults(self, y: Tensor, where: str) -> list[EdgekdError]:
        """Fewer than two pairs."""
        count = len(pairs_of(y)[0])
        if count > 1:
            return []
        message = f"{count} pairs among {len(y)} samples"
        hint = "give two samples the same number, and how alike they are, as their targets"
        return [InputError(message, where=where, allowed="2 pairs or more", hint=hint)]

    def classes_in(self, y: Tensor) -> int:
        """0: there are none to count."""
        return 0

    def target_faults(self, y: Tensor, classes: int, where: str) -> list[EdgekdError]:
        """Targets that aren't (N, 2), pairs of one or three, likeness out of range or unequal."""
        if y.ndim != 2 or y.shape[1] != 2:
            message = f"targets of shape {tuple(y.shape)}"
            allowed = "(N, 2): the number of a pair, and how alike it is"
            return [InputError(message, where=where, allowed=allowed)]
        known = y[y[:, 0] != NO_LABEL]
        numbers, counts = torch.unique(known[:, 0], return_counts=True)
        faults: list[EdgekdError] = []
        if bool((counts != 2).any()):
            at = int((counts != 2).nonzero()[0])
            message = f"pair {numbers[at]:g} has {int(counts[at])} samples"
            faults.append(InputError(message, where=where, allowed="2"))
        first, second = pairs_of(y)
        unequal = (y[first, 1] != y[second, 1]).nonzero().flatten()
        if len(unequal) and not faults:
            one, other = first[unequal[0]], second[unequal[0]]
            message = f"pair {y[one, 0]:g} is alike by {y[one, 1]:g} and by {y[other, 1]:g}"
            faults.append(InputError(message, where=where, allowed="the same for both samples"))
        outside = (known[:, 1] < 0) | (known[:, 1] > self.most)
        if bool(outside.any()):
            number, alike = known[outside][0].tolist()
            message = f"pair {number:g} is alike by {alike:g}"
            hint = "task = { name = 'embedding', most = 5.0 } for likeness from 0 to 5"
            allowed = f"0 to {self.most:g}"
            faults.append(InputError(message, where=where, allowed=allowed, hint=hint))
        return faults

    def output_fault(
        self, outputs: object, y: Tensor, classes: int, where: str
    ) -> InputError | None:
        """Other than (B, D)."""
        if isinstance(outputs, Tensor) and outputs.ndim == 2 and len(outputs) == len(y):
            return None
        return shape_fault(outputs, f"({len(y)}, width): one embedding for each sample", where)


def pairs_of(y: Tensor) -> tuple[Tensor, Tensor]:
    """The positions (P,) of the first and of the second sample of each pair that is here whole."""
    order = torch.argsort(y[:, 0], stable=True)
    numbers = y[order, 0]
    whole = (numbers[:-1] == numbers[1:]) & (numbers[1:] != NO_LABEL)
    return order[:-1][whole], order[1:][whole]


def _cosines(outputs: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return F.cosine_similarity(outputs[first], outputs[second], dim=1)


def _centred(outputs: Tensor) -> Tensor:
    """(B, B) the cosines between samples, less each row's mean."""
    unit = F.normalize(outputs, dim=1)
    cosines = unit @ unit.T
    return cosines - cosines.mean(1, keepdim=True)


def _correlation(cosines: Tensor, alike: Tensor) -> float:
    """Spearman's; 0 where either is the same for all pairs."""
    if len(alike) < 2 or bool((cosines == cosines[0]).all()) or bool((alike == alike[0]).all()):
        return 0.0
    return float(spearmanr(cosines.detach().double().numpy(), alike.numpy()).statistic)
