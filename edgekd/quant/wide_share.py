"""What a quantized graph computes in 16 bits, for the user."""

from collections.abc import Sequence

from torch import fx

from edgekd.network.cost import LayerCost
from edgekd.quant.inspection import wide_layers

_SHOWN = 4


def wide_note(graph: fx.GraphModule, costs: Sequence[LayerCost]) -> str:
    """'; 16-bit activations in 2 layers (stem, head) with 12 % of the multiply-accumulates';
    nothing where no layer with weights reads 16 bits."""
    layers = wide_layers(graph)
    if not layers:
        return ""
    total = sum(cost.macs for cost in costs if cost.parameters) or 1
    share = sum(cost.macs for cost in costs if cost.name in layers) / total
    more = ", ..." if len(layers) > _SHOWN else ""
    count = "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
    listed = ", ".join(layers[:_SHOWN]) + more
    return (
        f"; 16-bit activations in {count} ({listed}) with {100 * share:.3g} % of the "
        "multiply-accumulates"
    )
