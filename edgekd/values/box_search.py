"""The search for boxes that a deployed file may do by itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgekd.errors import EdgekdError, InputError


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


def unfit_candidates(error: EdgekdError, done: str) -> InputError:
    """The error for candidates that a file can't have: they can't be `done`, such as 'exported'."""
    return InputError(
        f"the candidates can't be {done}: {error.message}",
        where="data.task: candidates",
        allowed="operators on tensors, without loops over boxes",
        hint="leave out boxes_in_file, and decode outside of the file",
    )
