"""A net below the parity check: each layer's rounding against what its bits can give.

Parity compares a file with the graph it was made of, so a wrong graph passes it. Here the float
module is the judge: the exported graph must compute what the module does, and each calibrated layer
must lose no more than rounding its weights once, as well as its grid allows, would lose.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgekd.errors import ToolError
from edgekd.network.fx_names import layer_of
from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.quantizer import weight_limit
from edgekd.quant.regions import is_weighted
from edgekd.quant.rewrite import DEQUANTIZE, dequantized
from edgekd.values.target import Scheme
from edgekd.values.tree import Tree, rows

MARGIN_DB = 9.0
"""How far a layer may lie under its ideal: noise of 2.8 times the size."""

GOOD_DB = 30.0
"""Noise of 3 %: coarser weights than need be are right where they are small beside the bias."""

_SAMPLES = 16


@dataclass(frozen=True)
class LayerNoise:
    """A layer's signal to noise with its integer weights, and what those bits can give (dB)."""

    layer: str
    found: float
    possible: float

    @property
    def is_weak(self) -> bool:
        """Whether it is far under what its bits can give, and not good enough all the same."""
        return self.found < min(self.possible - MARGIN_DB, GOOD_DB)


def signal_to_noise(expected: Tensor, found: Tensor) -> float:
    """10 log10(sum e^2 / sum (e - f)^2), at most 200 dB."""
    # In one pass over each, summed in double precision.
    double = torch.float64
    signal = torch.linalg.vector_norm(expected, dtype=double).square()
    noise = torch.linalg.vector_norm(expected - found, dtype=double).square()
    return min(200.0, float(10 * torch.log10((signal / noise.clamp_min(1e-300)).clamp_min(1e-300))))


def layer_noises(
    floating: fx.GraphModule, quantized: fx.GraphModule, samples: Tree, scheme: Scheme
) -> list[LayerNoise]:
    """The noise of every layer that computes in integers, on the float network's activations.

    Layers have the same node names in both graphs. Biases are the float ones: bias correction moves
    those of the quantized graph on purpose.
    """
    layers = {node.name: node for node in quantized.graph.nodes if has_integers(node)}
    noises: list[LayerNoise] = []

    class Compared(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            if n.name in layers and is_weighted(n):
                source: Any = n.args[0]
                noises.append(
                    _noise(floating, n, self.env[source], quantized, layers[n.name], scheme)
                )
            return super().run_node(n)

    with torch.no_grad():
        Compared(floating).run(rows(samples, slice(0, _SAMPLES)))
    return noises


def has_integers(node: fx.Node) -> bool:
    """Whether a layer of a quantized graph reads its weight as integers."""
    return len(node.args) > 1 and getattr(node.args[1], "target", None) in DEQUANTIZE


def _noise(
    floating: fx.GraphModule,
    node: fx.Node,
    x: Tensor,
    quantized: fx.GraphModule,
    layer: fx.Node,
    scheme: Scheme,
) -> LayerNoise:
    weight = constant_of(floating, node.args[1]).detach()  # type: ignore[arg-type]
    ideal = ideal_weight(weight, scheme)

    def run(value: Tensor) -> Tensor:
        arguments = [
            constant_of(floating, each) if is_constant(each) else each  # type: ignore[arg-type]
            for each in node.args[2:]
        ]
        output: Tensor = node.target(x, value, *arguments)  # type: ignore[operator]
        return output

    expected = run(weight)
    found = signal_to_noise(expected, run(dequantized(quantized, layer.args[1])))  # type: ignore[arg-type]
    return LayerNoise(layer_of(node), found, signal_to_noise(expected, run(ideal)))


def ideal_weight(weight: Tensor, scheme: Scheme) -> Tensor:
    """A weight rounded once, on the grid whose range is exactly its own."""
    largest = _per_channel(weight) if scheme.per_channel else weight.abs().max()
    step = (largest / weight_limit(scheme)).clamp_min(torch.finfo(torch.float32).tiny)
    return (weight / step).round() * step


def _per_channel(weight: Tensor) -> Tensor:
    largest = weight.flatten(1).abs().amax(1)
    return largest.view(-1, *[1] * (weight.dim() - 1))


def check_layers(
    floating: fx.GraphModule,
    quantized: fx.GraphModule,
    samples: Tree,
    scheme: Scheme,
    where: str = "quantize",
) -> None:
    """Raise `ToolError` with the names of layers far under what their bits can give."""
    weak = [each for each in layer_noises(floating, quantized, samples, scheme) if each.is_weak]
    if weak:
        listed = ", ".join(
            f"{each.layer}: {each.found:.0f} dB where {scheme.weight_bits} bits give "
            f"{each.possible:.0f}"
            for each in weak[:4]
        )
        more = f" and {len(weak) - 4} more" if len(weak) > 4 else ""
        raise ToolError(f"the quantized graph is wrong in {listed}{more}", where=where)
