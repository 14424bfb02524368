"""From this package's sample layout (channels first) to the one a black box expects."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from edgekd.errors import InputError

Arrange = Callable[[Tensor], Tensor]


def arrangement(wanted: Sequence[int | None], sample: Sequence[int], where: str) -> Arrange:
    """A function from a batch (B, *sample) to (B, *wanted); a None in `wanted` fits any size.

    Tried in this order: the same, channels last, without a channel axis of size one, flattened.
    InputError if none fits.
    """
    wanted, sample = tuple(wanted), tuple(sample)
    last = (*sample[1:], sample[0])
    if _fits(wanted, sample):
        return lambda x: x
    if len(sample) > 1 and _fits(wanted, last):
        return lambda x: x.movedim(1, -1).contiguous()
    if sample[0] == 1 and _fits(wanted, sample[1:]):
        return lambda x: x.squeeze(1)
    if _fits(wanted, (torch.Size(sample).numel(),)):
        return lambda x: x.flatten(1)
    raise InputError(
        f"its input has shape {('B', *('?' if size is None else size for size in wanted))}".replace(
            "'", ""
        ),
        where=where,
        allowed=f"samples of shape {sample}, also with channels last or flattened",
    )


def _fits(wanted: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    return len(wanted) == len(shape) and all(
        size is None or size == actual for size, actual in zip(wanted, shape, strict=True)
    )
