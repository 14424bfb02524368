"""The grid of a quantized tensor: real value = (integer - zero_point) * scale."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import fx

DTYPES = {torch.int8: "int8", torch.uint8: "uint8"}


@dataclass(frozen=True)
class Grid:
    """Integers from `low` to `high` of an 8-bit type."""

    scale: float
    zero_point: int
    low: int = -128
    high: int = 127
    dtype: str = "int8"

    def integers(self, values: np.ndarray) -> np.ndarray:
        """Real values on this grid, rounded half to even as the quantized graph rounds."""
        steps = np.rint(values.astype(np.float32) * np.float32(1.0 / self.scale)) + self.zero_point
        clipped: np.ndarray = np.clip(steps, self.low, self.high).astype(self.dtype)
        return clipped

    def values(self, integers: np.ndarray) -> np.ndarray:
        """The real values of integers on this grid."""
        steps = (integers.astype(np.int64) - self.zero_point).astype(np.float32)
        values: np.ndarray = steps * np.float32(self.scale)
        return values

    def clamped(self, least: float | None, most: float | None) -> "Grid":
        """The grid with what a clamp to real values leaves of its range. Rounding keeps the order
        of numbers, so clamping after it gives the same integers."""
        low, high = self.low, self.high
        if least is not None:
            low = int(self.integers(np.array(least)))
        if most is not None:
            high = int(self.integers(np.array(most)))
        return replace(self, low=low, high=max(low, high))


def grid_of(node: fx.Node) -> Grid | None:
    """The grid of a per-tensor quantize or dequantize node; None if it is not of 8 bits."""
    arguments: tuple[Any, ...] = node.args
    _, scale, zero_point, low, high, dtype = arguments
    if dtype not in DTYPES or not isinstance(scale, float):
        return None
    return Grid(scale, int(zero_point), int(low), int(high), DTYPES[dtype])
