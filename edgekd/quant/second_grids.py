"""Values that are put on two grids, one after the other.

What is clamped at zero and joined with signed values has a grid of its own, which starts at zero,
before the common one: kernels that clamp by saturating need it. A converter may leave the first
grid out and compute on the common one at once, as litert-torch's does after a convolution, and
would then not clip where the first one ends. So the first has the step of the second: it ends no
earlier, and going from one to the other rounds nothing.
"""

from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers quantized_decomposed
from torch import fx

aten = torch.ops.aten
QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default

UNBOUNDED = (aten.relu.default, aten.relu_.default, aten.clamp_min.default)

Grid = tuple[float, int, int, int]
"""Scale, zero point, smallest and largest integer."""


def widen_first_grids(graph: fx.GraphModule) -> None:
    """Give a grid that starts at zero, after a clamp without an upper bound, the step of the widest
    grid that its values are put on next, unless it ends later than that."""
    for node in graph.graph.nodes:
        if node.target is not QUANTIZE:
            continue
        source: Any = node.args[0]
        scale, zero_point, low, high = grid_of(node)
        if source.target not in UNBOUNDED or zero_point != low:
            continue
        readers = [user for each in node.users for user in each.users]
        if not all(each.target is DEQUANTIZE for each in node.users):
            continue
        if not all(each.target is QUANTIZE for each in readers):
            continue
        ends = [((top - zero) * step, step) for step, zero, _, top in map(grid_of, readers)]
        widest, step = max(ends, default=(0.0, scale))
        if widest > (high - zero_point) * scale:
            for each in (node, *node.users):
                each.update_arg(1, step)


def grid_of(node: fx.Node) -> Grid:
    """The grid of a node that quantizes a whole tensor."""
    scale, zero_point, low, high = node.args[1:5]
    return scale, zero_point, low, high  # type: ignore[return-value]
