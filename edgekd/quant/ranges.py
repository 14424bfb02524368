"""How a tensor's range follows from the extremes of the calibration samples."""

from typing import Literal

Ranges = Literal["minmax", "mean-minmax"]
"""minmax: the extremes over all samples; mean-minmax: the mean of the samples' extremes, which
clips rare values."""
