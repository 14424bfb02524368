"""How many samples pass through a graph at once, so that memory does not grow with their number."""

from collections.abc import Iterator

from edgekd.values.tree import Tree, chunks, leaves, rows

_MOST_SAMPLES = 64
_MOST_VALUES = 2**23
"""The most input values run at once; intermediate activations are many times that."""


def batches(samples: Tree) -> Iterator[Tree]:
    """The samples in parts of at most 64, fewer where a sample is large."""
    values = sum(leaf[0].numel() for leaf in leaves(samples))
    return chunks(samples, max(1, min(_MOST_SAMPLES, _MOST_VALUES // max(1, values))))


def at_once(samples: Tree) -> Tree:
    """The first samples, as many as can be held at every layer in turn."""
    values = sum(leaf[0].numel() for leaf in leaves(samples))
    return rows(samples, slice(0, max(1, _MOST_VALUES // max(1, values))))
