"""How many of a layer's values lie beyond its grid on samples that did not set it."""

from typing import Any

from torch import Tensor, fx

from edgekd.quant.batches import batches
from edgekd.quant.fixed_grids import fixed_grid
from edgekd.quant.own_noise import layer_behind
from edgekd.quant.rewrite import QUANTIZE, is_weight
from edgekd.quant.watching import watch
from edgekd.values.tree import Tree

WORTH_A_NOTE = 0.01
"""The share of clipped values from which a layer is named."""

_MOST_NAMED = 3


def saturations(graph: fx.GraphModule, samples: Tree) -> dict[str, float]:
    """The share of values of each layer of an int8 graph that its grid clips on `samples`, the
    largest first."""
    counts: dict[str, tuple[int, int]] = {}
    grids: dict[Any, list[tuple[Any, ...]]] = {}
    for node in graph.graph.nodes:
        if node.target in QUANTIZE and not is_weight(node) and fixed_grid(node) is None:
            grids.setdefault(node.args[0], []).append(node.args[1:5])

    def see(source: fx.Node, value: Tensor) -> None:
        for step, zero, low, high in grids[source]:
            half = 0.5 * step
            below = value < (low - zero) * step - half
            above = value > (high - zero) * step + half
            outside, total = counts.get(layer_behind(source), (0, 0))
            clipped = int(below.sum()) + int(above.sum())
            counts[layer_behind(source)] = outside + clipped, total + value.numel()

    watch(graph, batches(samples), grids, see)
    shares = {name: outside / max(1, total) for name, (outside, total) in counts.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def saturation_note(graph: fx.GraphModule, samples: Tree) -> str:
    """The layers that clip more than a few values of training samples; "" if none does."""
    found = saturations(graph, samples)
    worst = {name: share for name, share in found.items() if share > WORTH_A_NOTE}
    if not worst:
        return ""
    shown = ", ".join(f"{name} {share:.1%}" for name, share in list(worst.items())[:_MOST_NAMED])
    more = f" and {len(worst) - _MOST_NAMED} more" if len(worst) > _MOST_NAMED else ""
    return f"clips values of other training samples: {shown}{more}"
