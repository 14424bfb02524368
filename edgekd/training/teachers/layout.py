"""From this package's samples (a tree, channels first) to the inputs that a black box expects."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from edgekd.errors import InputError
from edgekd.values.tree import Tree, named_leaves

Arrange = Callable[[Tensor], Tensor]


def inputs_for(
    wanted: Mapping[str, Sequence[int | None]], example: Tree, where: str
) -> Callable[[Tree], list[Tensor]]:
    """A function from a batch of samples to a file's inputs, in the order of `wanted`: the shape of
    one sample of each input, by its name.

    Leaves are taken by name where all names agree, otherwise in order. Raises `InputError` for
    another number of inputs, or for shapes that don't fit.
    """
    given = named_leaves(example)
    if len(given) != len(wanted):
        raise InputError(
            f"it takes {len(wanted)} inputs ({', '.join(wanted)}), but a sample has {len(given)}",
            where=where,
            allowed=", ".join(given),
        )
    order = list(wanted) if set(wanted) == set(given) else list(given)
    arranges = [
        arrangement(shape, given[name].shape[1:], where)
        for name, shape in zip(order, wanted.values(), strict=True)
    ]

    def inputs(x: Tree) -> list[Tensor]:
        leaves = named_leaves(x)
        return [arrange(leaves[name]) for name, arrange in zip(order, arranges, strict=True)]

    return inputs


def outputs_as_tree(names: Sequence[str], outputs: Sequence[Tensor]) -> Tree:
    """A file's outputs: the only one, or a dict by name."""
    return outputs[0] if len(outputs) == 1 else dict(zip(names, outputs, strict=True))


def arrangement(wanted: Sequence[int | None], sample: Sequence[int], where: str) -> Arrange:
    """A function from a batch (B, *sample) to (B, *wanted); a None in `wanted` fits any size.

    Tried in this order: the same, channels last, without a channel axis of size one, flattened.
    InputError if none fits.
    """
    wanted, sample = tuple(wanted), tuple(sample)
    last = (*sample[1:], *sample[:1])
    if _fits(wanted, sample):
        return lambda x: x
    if len(sample) > 1 and _fits(wanted, last):
        return lambda x: x.movedim(1, -1).contiguous()
    if sample and sample[0] == 1 and _fits(wanted, sample[1:]):
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
