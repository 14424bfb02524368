"""The longest sequence of ids that a network takes."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.values.tree import Tree, leaf_names, leaves, mapped, rows


def length_fault(
    module: nn.Module, x: Tree, numbers: Sequence[int] | Tensor, where: str
) -> InputError | None:
    """A fault for samples that are longer than the network's sequences, as a table of positions
    limits them; None where that is not why it fails on `x`, a batch of samples of these numbers.

    Sequences of the first id alone are tried, so that no other id is the reason.
    """
    x = rows(x, slice(1))
    lengths: dict[int, str] = {}
    for name, leaf in zip(leaf_names(x, ""), leaves(x), strict=True):
        if leaf.dtype == torch.int64 and leaf.ndim == 2:
            lengths.setdefault(leaf.shape[1], name)
    for length, name in lengths.items():
        runs = partial(_runs, module, x, length)
        longest = _longest(runs, length)
        if longest and not runs(length):
            of = f" in '{name}'" if name else ""
            return InputError(
                f"sample {int(numbers[0])} has {length:,} ids{of}, longer than the network's "
                "sequences",
                where=where,
                allowed=f"at most {longest:,}",
                hint=f"cut them to {longest:,}: length = {longest} of the tokenizer under "
                "[data.preprocess], or in your own data set",
            )
    return None


def _longest(runs: Callable[[int], bool], length: int) -> int:
    """The largest size below `length` that runs, where the next one does not; 0 for none."""
    low, high = 0, length
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if runs(middle) else (low, middle)
    return low


def _runs(module: nn.Module, x: Tree, length: int, size: int) -> bool:
    """Whether the network runs on sequences of `size` where they have that length: what is first in
    each, again and again."""

    def resized(leaf: Tensor) -> Tensor:
        sequence = leaf.ndim > 1 and leaf.shape[1] == length
        return leaf[:, :1].repeat_interleave(size, 1) if sequence else leaf

    cut = mapped(resized, x)
    try:
        with torch.no_grad():
            module(cut)
    except Exception:  # whatever the user's own forward raises
        return False
    return True
