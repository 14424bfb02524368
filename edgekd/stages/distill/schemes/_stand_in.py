"""Data that replaces the real samples for schemes that must not read them."""

from dataclasses import replace

import torch
from torch import Tensor

from edgekd.data.samples import Augmentation, Data, Samples


def only(data: Data, train: Samples, validation: Samples | None = None) -> Data:
    """The same task with other training samples; without validation samples, training keeps the
    last epoch. The test samples stay as they are: no training reads them.
    """
    chosen = none_of(data) if validation is None else validation
    return replace(data, train=train, validation=chosen)


def none_of(data: Data) -> Samples:
    """No samples, in the shape of the data's."""
    return data.train.first(0)


def ticks(data: Data, count: int) -> Data:
    """One empty sample per step, for a training whose loss makes its own inputs."""
    nothing = Samples(torch.zeros(count, 1), torch.zeros(count, dtype=torch.int64))
    return replace(only(data, nothing), augmentation=Augmentation())


def made(data: Data, x: Tensor, y: Tensor) -> Data:
    """The same task with synthetic training samples."""
    return only(data, Samples(x, y))
