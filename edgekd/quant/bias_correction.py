"""Bias correction on real samples: undoes the shift of a layer's mean output by weight rounding.

Nagel et al. 2019, section 4.2, in its empirical form: b += E[float output] - E[quantized output]
per channel, layer by layer, each after the layers before it were corrected. NNCF's fast variant
feeds every layer a constant image of channel means instead; with small images, most of whose pixels
lie near a padded border, that shifts biases by more than rounding did.

The mean over a few samples is itself uncertain. Each channel's shift d with standard error s is
hence shrunk to d max(0, 1 - s^2 / d^2), the positive-part estimator of James and Stein (1961).
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


def correct_biases(
    floating: fx.GraphModule, quantized: fx.GraphModule, samples: Tree
) -> dict[str, Tensor]:
    """Correct the biases of `quantized`, whose layers have the same names as those of `floating`.
    The result is what was added to each layer's bias (C,), by node name."""
    values = sum(leaf[0].numel() for leaf in leaves(samples))
    samples = rows(samples, slice(0, max(1, _MOST_VALUES // max(1, values))))
    with torch.no_grad():
        means = _Means(floating)
        means.run(samples)
        corrector = _Corrector(quantized, means.found)
        corrector.run(samples)
        shifts = {
            node.name: shift
            for node, shift in corrector.shifts.items()
            if _add(quantized, node, shift)
        }
    quantized.graph.eliminate_dead_code()
    quantized.recompile()
    return shifts


def shifted(node: fx.Node, output: Tensor, shift: Tensor) -> Tensor:
    """A layer's output with `shift` (C,) added to each channel."""
    if node.target is torch.ops.aten.linear.default:
        return output + shift
    return output + shift.view(-1, *[1] * (output.dim() - 2))


def significant_mean(errors: Tensor) -> Tensor:
    """The mean (C,) of errors (N, C), each shrunk by what its standard error explains."""
    mean = errors.mean(0)
    if len(errors) < 2:
        return mean
    noise = errors.var(0) / len(errors)
    tiny = torch.finfo(mean.dtype).tiny
    return mean * (1.0 - noise / mean.square().clamp_min(tiny)).clamp_min(0.0)


def _sample_means(node: fx.Node, output: Tensor) -> Tensor:
    """(B, C) from (B, C, ...) of a convolution or (B, ..., C) of a linear layer."""
    output = output.double()
    if node.target is torch.ops.aten.linear.default:
        output = output.view(1, -1) if output.dim() == 1 else output.movedim(-1, 1)
    return output if output.dim() == 2 else output.flatten(2).mean(2)


class _Means(fx.Interpreter):
    """Records every sample's mean output of every layer with weights, but not of the steps of a
    recurrent layer: they have one bias together."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.target in ops.WEIGHTED and GROUP not in n.meta:
            self.found[n.name] = _sample_means(n, result)
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
        errors = self.means[n.name] - _sample_means(n, result)
        self.shifts[n] = significant_mean(errors).to(result.dtype)
        return shifted(n, result, self.shifts[n])


def _is_rounded(layer: fx.Node) -> bool:
    weight: Any = layer.args[1]
    if weight.target is torch.ops.aten.view.default:
        weight = weight.args[0]
    return weight.target in DEQUANTIZE or weight.target is DEQUANTIZE_GROUPS


def _add(graph: fx.GraphModule, layer: fx.Node, shift: Tensor) -> bool:
    """Add to a layer's bias; False where it is computed, and stays."""
    old = layer.args[2] if len(layer.args) > 2 else None
    if old is not None and not is_constant(old):
        return False
    value = shift if old is None else constant_of(graph, old).detach() + shift  # type: ignore[arg-type]
    bias = replace_constant(graph, old, layer, value, "bias_corrected")
    layer.args = (*layer.args[:2], bias, *layer.args[3:])
    return True
