"""What a pruning removed, for the lineage and the report."""

from torch import nn

from edgekd.network.cost import totals
from edgekd.stages._coverage import changed_layers, untouched
from edgekd.stages.prune.blocks import residual_blocks
from edgekd.values.tree import Tree


def changes_line(before: nn.Module, after: nn.Module, example: Tree, granularity: str) -> str:
    """Parameters and MACs, the layers or blocks that changed, and the share that did not."""
    first, last = totals(before, example), totals(after, example)
    rest = untouched(before, example, changed_layers(before, after))
    if granularity == "blocks":
        changed = _removed_blocks(before, after, example)
    else:
        changed = _narrowed_layers(before, after)
    return (
        f"{first.parameters:,} -> {last.parameters:,} parameters, "
        f"{first.macs:,} -> {last.macs:,} MACs; {', '.join(changed) or 'no layer changed'}"
        + (f"; {rest}" if rest else "")
    )


def _narrowed_layers(before: nn.Module, after: nn.Module) -> list[str]:
    counts = channel_counts(after)
    return [
        f"{name} {count}->{counts[name]}"
        for name, count in channel_counts(before).items()
        if name in counts and counts[name] != count
    ]


def _removed_blocks(before: nn.Module, after: nn.Module, example: Tree) -> list[str]:
    modules = dict(after.named_modules())
    return [
        f"{block.name} removed"
        for block in residual_blocks(before, example)
        if isinstance(modules[block.name], nn.Identity)
    ]


def channel_counts(module: nn.Module) -> dict[str, int]:
    """How many channels every layer makes that makes any."""
    counts = {}
    for name, part in module.named_modules():
        for attribute in ("out_channels", "out_features", "nf", "hidden_size", "embedding_dim"):
            if isinstance(getattr(part, attribute, None), int):
                counts[name] = int(getattr(part, attribute))
    return counts
