"""Bias correction on real samples: undoes the shift of a layer's mean output by weight rounding.

Nagel et al. 2019, section 4.2, in its empirical form: b += E[float output] - E[quantized output]
per channel, layer by layer, each after the layers before it were corrected. NNCF's fast variant
feeds every layer a constant image of channel means instead; with small images, most of whose pixels
lie near a padded border, that shifts biases by more than rounding did.
"""

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quant import ops
from edgekd.quant.constants import constant_of, is_constant, replace_constant
from edgekd.quant.recurrent_cells import GROUP
from edgekd.quant.rewrite import DEQUANTIZE, DEQUANTIZE_GROUPS
from edgekd.values.tree import Tree, leaves, rows

_MOST_VALUES = 2**24
"""The most input values run at once; intermediate activations are many times that."""


def correct_biases(floating: fx.GraphModule, quantized: fx.GraphModule, samples: Tree) -> None:
    """Correct the biases of `quantized`, whose layers have the same names as those of
    `floating`."""
    values = sum(leaf[0].numel() for leaf in leaves(samples))
    samples = rows(samples, slice(0, max(1, _MOST_VALUES // max(1, values))))
    with torch.no_grad():
        means = _Means(floating)
        means.run(samples)
        corrector = _Corrector(quantized, means.found)
        corrector.run(samples)
        for node, shift in corrector.shifts.items():
            _add(quantized, node, shift)
    quantized.graph.eliminate_dead_code()
    quantized.recompile()


def _channel_mean(node: fx.Node, output: Tensor) -> Tensor:
    """(C,) from (B, C, ...) of a convolution or (B, ..., C) of a linear layer."""
    axis = output.dim() - 1 if node.target is torch.ops.aten.linear.default else 1
    return output.double().mean([dim for dim in range(output.dim()) if dim != axis])


class _Means(fx.Interpreter):
    """Records the mean output of every layer with weights, but not of the steps of a recurrent
    layer: they have one bias together."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.target in ops.WEIGHTED and GROUP not in n.meta:
            self.found[n.name] = _channel_mean(n, result)
        return result


class _Corrector(fx.Interpreter):
    """Runs the quantized graph with each layer's output shifted to its float mean."""

    def __init__(self, graph: fx.GraphModule, means: dict[str, Tensor]) -> None:
        super().__init__(graph)
        self.means = means
        self.shifts: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name not in self.means or not _is_rounded(n):
            return result
        shift = (self.means[n.name] - _channel_mean(n, result)).to(result.dtype)
        self.shifts[n] = shift
        if n.target is torch.ops.aten.linear.default:
            return result + shift
        return result + shift.view(-1, *[1] * (result.dim() - 2))


def _is_rounded(layer: fx.Node) -> bool:
    weight: Any = layer.args[1]
    if weight.target is torch.ops.aten.view.default:
        weight = weight.args[0]
    return weight.target in DEQUANTIZE or weight.target is DEQUANTIZE_GROUPS


def _add(graph: fx.GraphModule, layer: fx.Node, shift: Tensor) -> None:
    old = layer.args[2] if len(layer.args) > 2 else None
    if old is not None and not is_constant(old):
        return
    value = shift if old is None else constant_of(graph, old).detach() + shift  # type: ignore[arg-type]
    bias = replace_constant(graph, old, layer, value, "bias_corrected")
    layer.args = (*layer.args[:2], bias, *layer.args[3:])
