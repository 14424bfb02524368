"""Removing whole attention heads, their size unchanged."""

from collections.abc import Sequence

import torch
from torch import nn

from edgekd.models.transformer import Attention

PROJECTIONS = ("query", "key", "value", "output")


def attentions(module: nn.Module) -> dict[str, Attention]:
    """Every attention block that heads can be removed from, by name.

    One whose projections were factorized is none any more.
    """
    return {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, Attention)
        and all(isinstance(getattr(part, each), nn.Linear) for each in PROJECTIONS)
    }


def remove_heads(attention: Attention, heads: Sequence[int]) -> None:
    """Cut the heads out of query, key, value (rows) and output (columns), in place.

    Raises `ValueError` where none would be left.
    """
    kept = sorted(set(range(attention.heads)) - set(heads))
    if not kept:
        raise ValueError("no head would be left")
    size = attention.head_size
    rows = torch.tensor([head * size + place for head in kept for place in range(size)])
    for part in (attention.query, attention.key, attention.value):
        part.weight = nn.Parameter(part.weight.detach()[rows].clone())
        if part.bias is not None:
            part.bias = nn.Parameter(part.bias.detach()[rows].clone())
        part.out_features = len(rows)
    output = attention.output
    output.weight = nn.Parameter(output.weight.detach()[:, rows].clone())
    output.in_features = len(rows)
    attention.heads = len(kept)
