"""Which training samples an epoch takes, in which order."""

import torch
from torch import Tensor

from edgekd.data.samples import Data
from edgekd.data.seeds import seeded_generator
from edgekd.data.tasks import NO_LABEL


def epoch_order(data: Data, seed: int, epoch: int) -> Tensor:
    """(N,) positions of as many samples as there are: each once, or, with the balanced sampler,
    drawn with replacement so that every class, and no label, is equally frequent."""
    generator = seeded_generator(seed, "order", epoch)
    count = len(data.train)
    if data.sampler is None:
        return torch.randperm(count, generator=generator)
    strata = data.task.strata(data.train.y) - NO_LABEL
    weights = 1 / torch.bincount(strata).clamp(min=1).double()
    return torch.multinomial(weights[strata], count, replacement=True, generator=generator)
