"""The samples from which ranges are calibrated."""

from edgekd.training.context import Context
from edgekd.values.tree import Tree

SAMPLES = 256
"""As many of the training samples are taken where the recipe names no calibration set."""


def calibration_of(context: Context) -> Tree:
    """The recipe's calibration samples, or the first of the training set."""
    if context.calibration is not None:
        return context.calibration
    return context.data.train.first(SAMPLES).x
