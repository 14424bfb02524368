"""Which variant of the training samples an epoch sees."""

import torch
from torch import Tensor

from edgekd.data.samples import Data
from edgekd.data.seeds import seeded_generator

CHUNK = 4096
VIEWS = 0
"""The seed of the fixed variants: they belong to the data, so runs with other seeds share them."""


def fixed_views(data: Data) -> int:
    """How many fixed variants of the samples there are; 0 if every draw is new."""
    return data.augmentation.views if data.augmentation.active else 1


def view_of(data: Data, view: int) -> Tensor:
    """All training inputs as the fixed variant number `view` shows them."""
    if not data.augmentation.active:
        return data.train.x
    generator = seeded_generator(VIEWS, "view", view)
    changed = torch.empty_like(data.train.x)
    for start in range(0, len(changed), CHUNK):
        part = data.train.x[start : start + CHUNK]
        changed[start : start + CHUNK] = data.augmentation(part, generator)
    return changed
