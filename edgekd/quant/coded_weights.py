"""The integers of a layer's weight in a quantized graph, of either form: int8 per channel or
tensor, and narrow weights with one scale per group."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.recurrent_cells import GROUP
from edgekd.quant.rewrite import DEQUANTIZE, DEQUANTIZE_GROUPS


@dataclass(frozen=True, eq=False)
class CodedWeight:
    """The node that reads the codes, the step of each weight (o, k), and the codes' ends."""

    node: fx.Node
    step: Tensor
    low: int
    high: int

    def nearest(self, weight: Tensor) -> Tensor:
        """The codes (o, k) that are nearest to a weight (o, k)."""
        return (weight / self.step).round().clamp(self.low, self.high)


def coded_weight(graph: fx.GraphModule, layer: fx.Node) -> CodedWeight | None:
    """The codes of a layer that has them for itself; None for a float one, and for one whose
    weight other layers or the steps of a loop read too."""
    value: Any = layer.args[1]
    if not isinstance(value, fx.Node) or GROUP in layer.meta:
        return None
    chain = [value]
    if value.target is torch.ops.aten.view.default:
        chain.append(value.args[0])  # type: ignore[arg-type]
    source: Any = chain[-1]
    if source.target not in {*DEQUANTIZE, DEQUANTIZE_GROUPS} or not is_constant(source.args[0]):
        return None
    codes: fx.Node = source.args[0]
    readers = [node for node in graph.graph.nodes if node.target == codes.target]
    if len(readers) > 1 or any(len(node.users) > 1 for node in (*chain, codes)):
        return None
    shape = constant_of(graph, codes).flatten(1).shape
    if source.target is DEQUANTIZE_GROUPS:
        scales, (low, high) = constant_of(graph, source.args[1]), source.args[3:5]
        step = scales.repeat_interleave(shape[1] // scales.shape[1], 1)
    else:
        low, high = source.args[-3:-1]
        scale: Any = source.args[1]
        scales = constant_of(graph, scale) if is_constant(scale) else torch.tensor(float(scale))
        step = scales.reshape(-1, 1).expand(shape)
    return CodedWeight(codes, step.detach().float(), int(low), int(high))


def put_codes(graph: fx.GraphModule, weight: CodedWeight, codes: Tensor) -> None:
    """Store other codes (o, k)."""
    old = constant_of(graph, weight.node)
    old.copy_(codes.reshape(old.shape).to(old.dtype))
