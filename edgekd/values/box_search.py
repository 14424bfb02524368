"""The search for boxes that a deployed file may do by itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BoxSearch:
    """`candidates` makes of a network's outputs boxes (B, n, 4) as x, y (of the centre), width and
    height in shares of the image, scores (B, n) from 0 to 1, and classes (B, n), integers;
    `torch.export` can follow it.

    Of each image the `most` surest boxes stay that are surer than `confidence` and that no surer
    one of their class covers by `overlap` or more.
    """

    candidates: Callable[[Any], Any]
    confidence: float
    overlap: float
    most: int
