"""How many of a layer's values lie beyond its grid on samples that did not set it."""

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quant.batches import batches
from edgekd.quant.fixed_grids import fixed_grid
from edgekd.quant.own_noise import layer_behind
from edgekd.quant.rewrite import QUANTIZE, is_weight
from edgekd.values.tree import Tree, mapped

WORTH_A_NOTE = 0.01
"""The share of clipped values from which a layer is named."""

_MOST_NAMED = 3


def saturations(graph: fx.GraphModule, samples: Tree) -> dict[str, float]:
    """The share of values of each layer of an int8 graph that its grid clips on `samples`, the
    largest first."""
    counts: dict[str, tuple[int, int]] = {}

    class Watched(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            if n.target in QUANTIZE and not is_weight(n) and fixed_grid(n) is None:
                source: Any = n.args[0]
                value: Tensor = self.env[source]
                arguments: tuple[Any, ...] = n.args
                _, step, zero, low, high, *_ = arguments
                half = 0.5 * step
                below = value < (low - zero) * step - half
                above = value > (high - zero) * step + half
                outside, total = counts.get(layer_behind(source), (0, 0))
                clipped = int(below.sum()) + int(above.sum())
                counts[layer_behind(source)] = outside + clipped, total + value.numel()
            return super().run_node(n)

    with torch.no_grad():
        for batch in batches(samples):
            Watched(graph).run(mapped(torch.clone, batch))
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
