"""How the extremes of the calibration samples become the range of a tensor."""

from typing import Literal

Ranges = Literal["minmax", "mean-minmax"]
"""minmax: the extremes over all samples; mean-minmax: the mean of each sample's extremes, which
clips what is rare."""
