"""The samples from which ranges are calibrated."""

import torch

from edgekd.training.context import Context
from edgekd.values.tree import Tree

SAMPLES = 256
"""As many of the training samples are taken where the recipe names no calibration set."""

UNSEEN = 64
"""Training samples on which saturation is measured."""


def calibration_of(context: Context) -> Tree:
    """The recipe's calibration samples, or the first of the training set."""
    if context.calibration is not None:
        return context.calibration
    return context.data.train.first(SAMPLES).x


def unseen_of(context: Context) -> Tree:
    """Some training samples, evenly spread, most of which are in no calibration set."""
    number = len(context.data.train)
    index = torch.linspace(0, number - 1, min(number, UNSEEN)).long()
    return context.data.train.take(index).x
