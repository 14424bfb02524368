"""The attention blocks that whole heads can be removed from, their size unchanged."""

from torch import nn

from edgekd.models.transformer import Attention

PROJECTIONS = ("query", "key", "value", "output")


def attentions(module: nn.Module) -> dict[str, Attention]:
    """Every such block, by name, except those whose projections were factorized."""
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, Attention)
        and all(isinstance(getattr(part, each), nn.Linear) for each in PROJECTIONS)
    }
